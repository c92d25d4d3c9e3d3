"""One name for every source of questions."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..isomers.rows import is_isomers, load_isomers, some_isomers
from ..isomers.validate import check_isomers
from ..models import is_in_a_folder
from ..rows import check_dataset, read_jsonl
from .reasoning_gym import load_reasoning_gym
from .sciknoweval import is_sciknoweval, load_sciknoweval, split_files

if TYPE_CHECKING:
    from datasets import Dataset

DEFAULT_COUNT = 1000
_FACTS = Path(__file__).with_name("facts.jsonl")

Source = Callable[..., "Dataset"]
KINDS: dict[str, Source] = {}


def register(kind: str) -> Callable[[Source], Source]:
    """Decorator: adds a source that `load_questions` knows as `kind` or `kind:rest`.

    A source takes what follows the colon (or ""), the split, and the options that it knows by
    name. It returns rows with a column `prompt`.
    """

    def add(load: Source) -> Source:
        KINDS[kind] = load
        return load

    return add


def load_questions(name: str, split: str = "train", **options: Any) -> Dataset:
    """Load questions by name, checked and ready to train on.

    Args:
        name: One of

            - ``facts``: some hundred questions on facts of chemistry, as in the demo;
            - ``sciknoweval`` or ``sciknoweval:physics``: SciKnowEval from the hub;
            - a folder with ``<domain>/<split>.jsonl``, or a ``.jsonl`` file (taken whole, whatever
              the split): SciKnowEval's form, isomer sets, or any rows with a column ``prompt``;
            - ``reasoning_gym:<task>``: a task of Reasoning Gym;
            - ``isomers`` or ``isomers:ordering,rates``: generated logical isomers, a row a problem;
            - anything else: the id of a data set on the hub, with a column ``prompt``.
        split: ``train``, ``validation`` or ``test``; for a hub data set any split that it has.
        **options: ``count`` (how many questions, of isomers how many sets; default 1000 if
            generated, else all), ``seed`` (which ones), ``style`` (``chat``, ``plain`` or
            ``short``; rows that bring their prompt keep it), ``reference`` (SciKnowEval: reference
            answers as privileged context), ``depths``, ``domains``, ``cue_strength``,
            ``phrasings`` and ``tests`` (of isomers, as in `isomers.rows.load_isomers`), and
            what the source itself knows.

    Raises:
        ValueError, FileNotFoundError, ImportError: The name, an option or a row is wrong.
    """
    kind, _, rest = name.partition(":")
    if kind in KINDS:
        load, what = KINDS[kind], rest
    else:
        is_path = name.endswith(".jsonl") or name.startswith((".", "/", "~"))
        is_path = is_path or Path(name).exists() or is_in_a_folder(name)
        load, what = (_local if is_path else _hub), name
    parameters = inspect.signature(load).parameters
    known = list(parameters)[2:]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not takes_any and (unknown := [option for option in options if option not in known]):
        near = difflib.get_close_matches(unknown[0], known, n=1)
        found = f"{unknown[0]!r}; did you mean {near[0]!r}?" if near else repr(unknown[0])
        raise ValueError(f"{name}: expected options among {', '.join(known)}, found {found}")
    return load(what, split, **options)


@register("facts")
def _facts(
    rest: str, split: str, count: int | None = None, seed: int = 0, style: str = "short"
) -> Dataset:
    """As all rows that bring their prompt, these keep it, whatever the style."""
    from datasets import Dataset

    rows = [row for row in read_jsonl(_FACTS) if row.pop("split") == split]
    if rest or not rows:
        found = repr(rest) if rest else f"split {split!r}"
        expected = "nothing behind it and split train or test"
        raise ValueError(f"facts: expected {expected}, found {found}")
    return _some(Dataset.from_list(rows), count, seed)


@register("sciknoweval")
def _sciknoweval(
    rest: str,
    split: str,
    count: int | None = None,
    seed: int = 0,
    style: str = "chat",
    reference: bool = False,
) -> Dataset:
    domains = [part.strip() for part in rest.split(",") if part.strip()] or None
    return _some(load_sciknoweval(None, split, domains, style, reference), count, seed)


register("reasoning_gym")(load_reasoning_gym)
register("isomers")(load_isomers)


def _local(
    source: str,
    split: str,
    domains: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    style: str = "chat",
    reference: bool = False,
) -> Dataset:
    rows = [row for path in split_files(source, split) for row in read_jsonl(path)]
    if is_sciknoweval(rows):
        return _some(load_sciknoweval(source, split, domains, style, reference), count, seed)
    if reference:
        raise ValueError(
            f"{source}: expected questions in SciKnowEval's form to take reference answers from, "
            "found other rows; fill their column 'privileged_context' instead"
        )
    return _own(rows, source, count, seed, domains)


def _hub(
    source: str,
    split: str,
    config: str | None = None,
    revision: str | None = None,
    domains: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    style: str = "chat",
) -> Dataset:
    import datasets

    try:
        table = datasets.load_dataset(source, config, split=split, revision=revision)
    except Exception as error:  # the hub's client raises many kinds
        raise ValueError(
            f"data set {source!r}: expected 'facts', 'sciknoweval', 'reasoning_gym:<task>', a "
            f"local folder or .jsonl file, or a data set on the hub with a split {split!r}; found "
            f"none ({type(error).__name__}: {error})"
        ) from error
    return _own(table, source, count, seed, domains)


def _own(
    rows: Any, source: str, count: int | None, seed: int, domains: Sequence[str] | None
) -> Dataset:
    """A list or table of the user's own: whole sets of isomers, or any rows with a prompt."""
    from datasets import Dataset

    if is_isomers(rows):
        rows = list(rows)
        check_isomers(rows, source)
        return Dataset.from_list(some_isomers(rows, count, seed, domains))
    if domains is not None:
        raise ValueError(f"{source}: expected isomer sets to take domains from, found other rows")
    check_dataset(rows, name=source)
    return _some(rows if isinstance(rows, Dataset) else Dataset.from_list(rows), count, seed)


def _some(table: Dataset, count: int | None, seed: int) -> Dataset:
    if count is None:
        return table
    if not 1 <= count <= len(table):
        raise ValueError(f"count: expected 1 to {len(table)}, the rows there are, found {count}")
    return table.shuffle(seed=seed).select(range(count))
