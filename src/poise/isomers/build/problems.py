"""The user's own problems: read, checked row by row, before anything is asked of a teacher."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...rows import check_columns, read_jsonl
from ..answers import MARKER
from ..meanings import Answer, read_answer, read_options

_PROMPTS = ("prompt", "question")
_SOLUTIONS = ("completion", "solution")
# "Answer: 5" or GSM8K's "#### 5" at the end of a solution.
_END = re.compile(r"\n?\s*(?:Answer:|####)[^\n]*\s*\Z")


@dataclass(frozen=True)
class SourceProblem:
    """A problem to rewrite.

    Args:
        id: Unique name, which its isomer set keeps.
        prompt: What is asked, with its options.
        answer: The right answer.
        solution: Worked steps without the answer's line, empty if there are none.
        domain: Domain in whose words it is, None if unknown.
    """

    id: str
    prompt: str
    answer: Answer
    solution: str = ""
    domain: str | None = None


def read_problems(path: str | Path) -> list[SourceProblem]:
    """Read the problems of a file with one JSON object a line.

    Columns: ``prompt`` or ``question``; ``answer`` (a number, a truth word, an option by letter or
    text, or a name that the prompt mentions; GSM8K's ``solution #### answer`` is taken apart);
    optional ``id``, ``completion`` or ``solution``, ``domain``, and ``options``, a list that is
    written below a prompt which does not list them itself.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no JSON object, a column is missing, a prompt or an answer is empty
            or no text, an id occurs twice, or an answer is of no kind that can be checked.
    """
    rows = read_jsonl(path)
    problems = [_read(row, number, str(path)) for number, row in enumerate(rows)]
    seen: dict[str, int] = {}
    for number, problem in enumerate(problems):
        if problem.id in seen:
            raise ValueError(
                f"{path}, row {number}: expected each id once, found {problem.id!r} also in row "
                f"{seen[problem.id]}; rename or remove one"
            )
        seen[problem.id] = number
    return problems


def digest(problems: Sequence[SourceProblem]) -> str:
    """A fingerprint of problems, so that a journal is continued with the same ones only."""
    text = json.dumps([asdict(problem) for problem in problems], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(row: dict[str, Any], number: int, name: str) -> SourceProblem:
    where = f"{name}, row {number}"
    column = next((column for column in _PROMPTS if column in row), None)
    if column is None:
        raise ValueError(
            f"{where}: expected a column 'prompt' or 'question', found {', '.join(row) or 'none'}"
        )
    check_columns(list(row), ["answer"], where)
    asked = _text(row, column, where).removesuffix(MARKER).strip()
    prompt = _with_options(asked, row.get("options"), where)
    answer, solution = _text(row, "answer", where), _solution(row, where)
    if "####" in answer:
        worked, _, answer = answer.rpartition("####")
        solution = solution or worked.strip()
    read = read_answer(prompt, answer)
    if read is None:
        raise ValueError(
            f"{where}: expected an answer that can be checked (a number, yes, no or unknown, an "
            f"option by letter or text, or a name that the prompt mentions), found {answer!r}; "
            "fix or remove the row"
        )
    identity = row["id"] if row.get("id") not in (None, "") else f"row-{number}"
    domain = row.get("domain")
    return SourceProblem(str(identity), prompt, read, solution, str(domain) if domain else None)


def _text(row: dict[str, Any], column: str, where: str) -> str:
    """A filled column as text; a number counts, a list of messages does not."""
    value = row[column]
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}: expected text in the column {column!r}, found {value!r}; fix or remove "
            "the row"
        )
    return value.strip()


def _solution(row: dict[str, Any], where: str) -> str:
    column = next((column for column in _SOLUTIONS if row.get(column) not in (None, "")), None)
    return "" if column is None else without_answer(_text(row, column, where))


def without_answer(text: str) -> str:
    """A worked solution without the line that repeats the answer."""
    return _END.sub("", text.strip()).strip()


def _with_options(prompt: str, options: Any, where: str) -> str:
    if options is None or read_options(prompt):
        return prompt
    is_list = isinstance(options, list) and 2 <= len(options) <= 8
    if not is_list or not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"{where}: expected 2 to 8 texts in 'options', found {options!r}")
    letters = "ABCDEFGH"
    lines = (f"{letter}) {text}" for letter, text in zip(letters, options, strict=False))
    return "\n".join([prompt, *lines])
