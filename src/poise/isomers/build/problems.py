"""The user's own problems: read, checked row by row, before anything is asked of a teacher."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...rows import check_columns, read_jsonl
from ..answers import MARKER
from ..meanings import Answer, read_answer, read_options

# "Answer: 5" or GSM8K's "#### 5" at the end of a solution.
_END = re.compile(r"\n?\s*(?:Answer:|####)[^\n]*\s*\Z")
_LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class SourceProblem:
    """A problem to rewrite."""

    id: str  # unique; its isomer set keeps it
    prompt: str  # with its options
    answer: Answer
    solution: str = ""  # worked steps without the answer's line, empty if there are none
    domain: str | None = None  # in whose words it is, None if unknown


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
    problems: dict[str, SourceProblem] = {}
    for number, row in enumerate(read_jsonl(path)):
        where = f"{path}, row {number}"
        problem = _read(row, f"row-{number}", where)
        if problem.id in problems:
            before = list(problems).index(problem.id)
            raise ValueError(
                f"{where}: expected each id once, found {problem.id!r} also in row {before}; "
                "rename or remove one"
            )
        problems[problem.id] = problem
    return list(problems.values())


def _read(row: dict[str, Any], name: str, where: str) -> SourceProblem:
    filled = {column: value for column, value in row.items() if value not in (None, "")}
    column = "prompt" if "prompt" in row else "question"
    if column not in row:
        found = ", ".join(row) or "none"
        raise ValueError(f"{where}: expected a column 'prompt' or 'question', found {found}")
    check_columns(list(row), ["answer"], where)
    prompt = _text(row, column, where).removesuffix(MARKER).strip()
    prompt = _with_options(prompt, row.get("options"), where)
    worked, _, answer = _text(row, "answer", where).rpartition("####")
    column = "completion" if "completion" in filled else "solution"
    solution = without_answer(_text(row, column, where)) if column in filled else ""
    read = read_answer(prompt, answer)
    if read is None:
        raise ValueError(
            f"{where}: expected an answer that can be checked (a number, yes, no or unknown, an "
            f"option by letter or text, or a name that the prompt mentions), found {answer!r}; "
            "fix or remove the row"
        )
    name, domain = str(filled.get("id", name)), row.get("domain")
    return SourceProblem(
        name, prompt, read, solution or worked.strip(), str(domain) if domain else None
    )


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


def without_answer(text: str) -> str:
    """A worked solution without the line that repeats the answer."""
    return _END.sub("", text.strip()).strip()


def _with_options(prompt: str, options: Any, where: str) -> str:
    if options is None or read_options(prompt):
        return prompt
    is_list = isinstance(options, list) and 2 <= len(options) <= len(_LETTERS)
    if not is_list or not all(isinstance(option, str) and option.strip() for option in options):
        raise ValueError(f"{where}: expected 2 to 8 texts in 'options', found {options!r}")
    lines = (f"{letter}) {text}" for letter, text in zip(_LETTERS, options, strict=False))
    return "\n".join([prompt, *lines])
