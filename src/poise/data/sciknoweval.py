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
from typing import TYPE_CHECKING

from ..question import LETTERS
from ..rewards import check_rows
from ..rows import check_columns, check_dataset, check_some, read_jsonl
from ..splits import check_split, stable_split
from .prompts import CHAT_SYSTEM, Row, get_style

if TYPE_CHECKING:
    from datasets import Dataset

HUB_ID = "hicai-zju/SciKnowEval"
# Our names of the domains -> theirs.
HUB_DOMAINS = {
    "biology": "Biology",
    "chemistry": "Chemistry",
    "materials": "Material",
    "physics": "Physics",
}
HUB_TYPES = ("mcq-4-choices", "mcq-2-choices")
LOCAL_COLUMNS = ("prompt", "answer", "domain", "id")

_OPTION = re.compile(r"^([A-D]): (.*)$", re.MULTILINE)
_CLOSING = "Please reason step by step."


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
            of the question decides (80 %, 10 %, 10 %).
        domains: Some of the domains; None for all that there are.
        style: ``chat`` keeps the prompts as they are; another style renders them anew.
        reference: Reference answers as privileged context: the teacher reads each right
            answer, in the style's form. Without, it learns from successes alone, so a model that
            never succeeds never starts.

    Returns:
        Columns ``id``, ``domain``, ``prompt``, ``answer``, ``options``; with ``reference`` also
        ``privileged_context``.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: On an unknown split, domain or style, or rows that are not such questions.
    """
    from datasets import Dataset

    get_style(style)
    rows = list(_hub_rows(check_split(split)) if source is None else _local_rows(source, split))
    if domains is not None:
        check_some("domains", domains, sorted({row["domain"] for row in rows}))
        rows = [row for row in rows if row["domain"] in domains]
    name = HUB_ID if source is None else str(source)
    check_dataset(rows, ("prompt", "answer", "options"), filled=("prompt", "answer"), name=name)
    check_rows(rows, f"{name}, ")
    return Dataset.from_list([_render(row, style, reference) for row in rows])


def is_sciknoweval(rows: Sequence[Row]) -> bool:
    """Whether the rows of a file have the form of a SciKnowEval question."""
    first = rows[0]
    return all(column in first for column in LOCAL_COLUMNS) and isinstance(first["prompt"], str)


def split_files(source: str | Path, split: str) -> list[Path]:
    """List the files of a split: the file itself, or those of a folder.

    Raises:
        FileNotFoundError: If there are none; the splits that there are, are named.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: expected a folder or a .jsonl file, found neither")
    check_split(split)
    found = sorted([*source.glob(f"*/{split}.jsonl"), *source.glob(f"{split}.jsonl")])
    if not found:
        there = sorted({p.stem for p in [*source.glob("*/*.jsonl"), *source.glob("*.jsonl")]})
        raise FileNotFoundError(
            f"{source}: expected <domain>/{split}.jsonl or {split}.jsonl, found "
            f"{'the splits ' + ', '.join(there) if there else 'no .jsonl files'}"
        )
    return found


def parse_question(prompt: str) -> tuple[str, list[str]]:
    """Take a question apart into its stem and its options.

    The last block of lines ``A: ...`` to ``D: ...`` (or to ``B: ...``) counts.

    Raises:
        ValueError: If there are no such lines.
    """
    text = prompt.removesuffix(_CLOSING).rstrip()
    found = list(_OPTION.finditer(text))
    starts = [index for index, match in enumerate(found) if match[1] == "A"]
    block = found[starts[-1] :] if starts else []
    letters = [match[1] for match in block]
    if len(block) < 2 or letters != list(LETTERS[: len(block)]):
        raise ValueError(
            "expected options in lines 'A: ...', 'B: ...', found "
            f"{letters or 'none'} in {prompt[-200:]!r}"
        )
    ends = [match.start() for match in block[1:]] + [len(text)]
    options = [text[match.start(2) : end].strip() for match, end in zip(block, ends, strict=True)]
    return text[: block[0].start()].strip(), options


def _local_rows(source: str | Path, split: str) -> Iterator[Row]:
    for path in split_files(source, split):
        rows = read_jsonl(path)
        check_columns(list(rows[0]), ("prompt", "answer"), str(path))
        for number, row in enumerate(rows):
            try:
                stem, options = parse_question(row["prompt"])
            except (KeyError, AttributeError, ValueError) as error:
                raise ValueError(f"{path}, row {number}: {error}") from None
            yield {
                "id": str(row.get("id", f"{path.stem}-{number}")),
                "domain": str(row.get("domain", path.parent.name)),
                "system": row.get("system", CHAT_SYSTEM),
                "prompt": row["prompt"],
                "stem": stem,
                "options": options,
                "answer": row.get("answer"),
            }


def _hub_rows(split: str) -> Iterator[Row]:
    import datasets

    ours = {theirs: own for own, theirs in HUB_DOMAINS.items()}
    # The hub's only split is called "test"; ours are cut from it.
    table = datasets.load_dataset(HUB_ID, split="test")
    required = ("domain", "details", "type", "question", "choices", "answerKey")
    check_columns(table.column_names, required, HUB_ID)
    for row in table:
        wanted = row["domain"] in ours and row["type"] in HUB_TYPES
        if not wanted or (row["details"] or {}).get("level") != "L3":
            continue
        stem, choices = row["question"].strip(), row["choices"]
        if stable_split(f"sciknoweval|{stem}") != split:
            continue
        domain, options = ours[row["domain"]], [str(text) for text in choices["text"]]
        lines = [f"{label}: {text}" for label, text in zip(LETTERS, options, strict=False)]
        prompt = "\n".join([stem, "", *lines, _CLOSING])
        yield {
            "id": f"{domain}-{hashlib.sha256(prompt.encode()).hexdigest()[:10]}",
            "domain": domain,
            "system": CHAT_SYSTEM,
            "prompt": prompt,
            "stem": stem,
            "options": options,
            "answer": row["answerKey"],
        }


def _render(row: Row, style: str, reference: bool) -> Row:
    form = get_style(style)
    rendered = {column: row[column] for column in ("id", "domain", "answer", "options")}
    rendered["prompt"] = [
        {"role": "system", "content": row["system"]},
        {"role": "user", "content": row["prompt"]},
    ]
    if style != "chat":
        rendered["prompt"] = form.prompt(row["stem"], row["options"])
    if reference:
        right = row["options"][LETTERS.index(row["answer"])]
        rendered["privileged_context"] = form.reference("", row["answer"], right)
    return rendered
