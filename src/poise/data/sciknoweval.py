"""SciKnowEval: level-3 multiple-choice questions of four sciences.

Source: Feng et al., arXiv 2406.09098; on the hub as ``hicai-zju/SciKnowEval``. Local files have
the form of the SDPO experiments (arXiv 2601.20802): ``<domain>/<split>.jsonl`` with one object a
line, ``id``, ``domain``, ``system``, ``prompt``, ``answer``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models import expanded
from ..rewards import LETTERS, check_rows
from ..rows import check_columns, check_dataset, check_some, read_jsonl
from ..splits import check_split, stable_split
from .prompts import CHAT_SYSTEM, CLOSING, chat_prompt, get_style

if TYPE_CHECKING:
    from datasets import Dataset

HUB_ID = "hicai-zju/SciKnowEval"
HUB_COLUMNS = ("domain", "details", "type", "question", "choices", "answerKey")
# Their names of the domains -> ours.
HUB_DOMAINS = dict(
    Biology="biology", Chemistry="chemistry", Material="materials", Physics="physics"
)
HUB_TYPES = ("mcq-4-choices", "mcq-2-choices")
LOCAL_COLUMNS = ("prompt", "answer", "domain", "id")

_COLUMNS = ("id", "domain", "prompt", "stem", "options", "answer")  # of a question, until it is put
_OPTION = re.compile(r"^([A-D]): (.*)$", re.MULTILINE)


def load_sciknoweval(
    source: str | Path | None = None,
    split: str = "train",
    domains: Sequence[str] | None = None,
    style: str = "chat",
    reference: bool = False,
) -> Dataset:
    """Load SciKnowEval from a folder or file, or from the hub.

    Args:
        source: A folder with ``<domain>/<split>.jsonl`` or ``<split>.jsonl``, one ``.jsonl`` file
            (taken whole, whatever the split), or None for the hub.
        split: ``train``, ``validation`` or ``test``. The hub has one split only, so there a hash
            of the question decides.
        domains: Some of the domains; None for all that there are.
        style: ``chat`` keeps the prompts as they are; another style renders them anew.
        reference: Reference answers as privileged context: the teacher reads each right
            answer, in the style's form. Without, it learns from successes alone, so a model that
            never succeeds never starts.

    Returns:
        Columns ``id``, ``domain``, ``prompt``, ``answer``, ``options``; with ``reference`` also
        ``privileged_context``.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: An unknown split, domain or style, or rows that are not such questions.
    """
    from datasets import Dataset

    form = get_style(style)
    found = _hub_rows(check_split(split)) if source is None else _local_rows(source, split)
    rows = [dict(zip(_COLUMNS, values, strict=True)) for values in found]
    if domains is not None:
        check_some("domains", domains, sorted({row["domain"] for row in rows}))
        rows = [row for row in rows if row["domain"] in domains]
    name = HUB_ID if source is None else str(source)
    check_dataset(rows, filled=("prompt", "answer"), name=name)
    check_rows(rows, f"{name}, ")
    for row in rows:
        stem, options, answer = row.pop("stem"), row["options"], row["answer"]
        if style != "chat":
            row["prompt"] = form.prompt(stem, options)
        if reference:
            right = options[LETTERS.index(answer)]
            row["privileged_context"] = form.reference("", answer, right)
    return Dataset.from_list(rows)


def is_sciknoweval(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the rows of a file have the form of a SciKnowEval question."""
    first = rows[0]
    return all(column in first for column in LOCAL_COLUMNS) and isinstance(first["prompt"], str)


def split_files(source: str | Path, split: str) -> list[Path]:
    """The files of a split: the file itself, or those of a folder; a FileNotFoundError without."""
    source = expanded(source)
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: expected a folder or a .jsonl file, found neither")
    check_split(split)
    found = sorted([*source.glob(f"*/{split}.jsonl"), *source.glob(f"{split}.jsonl")])
    if not found:
        names = sorted({p.stem for p in [*source.glob("*/*.jsonl"), *source.glob("*.jsonl")]})
        there = f"the splits {', '.join(names)}" if names else "no .jsonl files"
        raise FileNotFoundError(
            f"{source}: expected <domain>/{split}.jsonl or {split}.jsonl, found {there}"
        )
    return found


def parse_question(prompt: str) -> tuple[str, list[str]]:
    """Take a question apart into its stem and its options; a ValueError if it has none.

    The last block of lines ``A: ...`` to ``D: ...`` (or to ``B: ...``) counts.
    """
    text = prompt.removesuffix(CLOSING).rstrip()
    found = list(_OPTION.finditer(text))
    starts = [index for index, match in enumerate(found) if match[1] == "A"]
    block = found[starts[-1] :] if starts else []
    letters = tuple(match[1] for match in block)
    if len(block) < 2 or letters != LETTERS[: len(block)]:
        found_in = f"{', '.join(letters) or 'none'} in {prompt[-200:]!r}"
        raise ValueError(f"expected options in lines 'A: ...', 'B: ...', found {found_in}")
    ends = [match.start() for match in block[1:]] + [len(text)]
    options = [text[match.start(2) : end].strip() for match, end in zip(block, ends, strict=True)]
    return text[: block[0].start()].strip(), options


def _local_rows(source: str | Path, split: str) -> Iterator[tuple[Any, ...]]:
    for path in split_files(source, split):
        rows = read_jsonl(path)
        check_columns(list(rows[0]), ("prompt", "answer"), str(path))
        for number, row in enumerate(rows):
            try:
                stem, options = parse_question(row["prompt"])
            except (KeyError, AttributeError, ValueError) as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            system = {"role": "system", "content": row.get("system", CHAT_SYSTEM)}
            prompt = [system, {"role": "user", "content": row["prompt"]}]
            name = str(row.get("id", f"{path.stem}-{number}"))
            domain = str(row.get("domain", path.parent.name))
            yield name, domain, prompt, stem, options, row.get("answer")


def _hub_rows(split: str) -> Iterator[tuple[Any, ...]]:
    import datasets

    # The hub's only split is called "test"; ours are cut from it.
    table = datasets.load_dataset(HUB_ID, split="test")
    check_columns(table.column_names, HUB_COLUMNS, HUB_ID)
    for row in table:
        wanted = row["domain"] in HUB_DOMAINS and row["type"] in HUB_TYPES
        if not wanted or (row["details"] or {}).get("level") != "L3":
            continue
        stem, options = row["question"].strip(), [str(text) for text in row["choices"]["text"]]
        if stable_split(f"sciknoweval|{stem}") != split:
            continue
        domain, prompt = HUB_DOMAINS[row["domain"]], chat_prompt(stem, options)
        digest = hashlib.sha256(prompt[1]["content"].encode()).hexdigest()[:10]
        yield f"{domain}-{digest}", domain, prompt, stem, options, row["answerKey"]
