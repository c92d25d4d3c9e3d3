"""Finds what is wrong with isomer sets: in a row, within a set, between sets and files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ..rows import read_lines, text_fault, text_of
from .answers import MARKER
from .forms import Row
from .rows import COLUMNS, MASKS, TOKENS, name_of_test, required

Source = str | Path | Sequence[Mapping[str, Any]]
_FILLED = ("answer", "answer_text", "family", "form")  # of rows that are scored
# Column -> the fault of a set whose rows differ in it.
_SHARED = {
    "answer": "answers disagree",
    "form": "forms differ",
    "family": "families differ",
    "depth": "depths differ",
}
_TEXT = ("prompt", "completion")
# Kinds that `IGATrainer` refuses, or that make a test worthless.
_REFUSED = (
    *("missing column", "wrong type", "wrong text", "empty", "repeated domain", "reused id"),
    "image column",
)
# Kinds that are doubtful, and no fault; the last two in one file.
_DOUBTFUL = (
    *("missing domain", "leaked answer", "same wording", "duplicate problem", "duplicate form"),
)


class Fault(NamedTuple):
    """One thing that is wrong (`kind` in a word or two, `text` with what was expected and found),
    or doubtful: that can be trained on, and may be meant so. Lines and rows count from 1."""

    file: str
    line: int
    isomer_id: str | None
    kind: str
    text: str
    is_doubtful: bool = False

    def __str__(self) -> str:
        one = "" if self.isomer_id is None else f", set {self.isomer_id}"
        kind = f"warning: {self.kind}" if self.is_doubtful else self.kind
        return f"{self.file}, line {self.line}{one}: {kind}: {self.text}"


class _Place(NamedTuple):
    """A row and where it stands."""

    file: str
    line: int
    row: Mapping[str, Any]

    def fault(self, kind: str, expected: str, found: str | None = None) -> Fault:
        """A fault, or a warning: without options no logic is scored, so none need be sound."""
        is_sound = kind in _REFUSED or (self.is_scored and kind not in _DOUBTFUL)
        name = self.row.get("isomer_id")
        isomer = str(name) if isinstance(name, str | int) else None
        text = expected if found is None else f"expected {expected}, found {found}"
        return Fault(self.file, self.line, isomer, kind, text, not is_sound)

    def text(self, column: str) -> str:
        """A column's value as text, empty if it is not there."""
        value = self.row.get(column)
        return " ".join(map(str, value or ())) if column == TOKENS else text_of(value)

    @property
    def problem(self) -> str:
        """The prompt, or the tokens of a row that is tokenised."""
        return self.text(TOKENS if TOKENS in self.row else "prompt")

    @property
    def is_scored(self) -> bool:
        """Whether the row is scored by its logic."""
        return self.row.get("options") is not None

    @property
    def key(self) -> tuple[str, str, str]:
        """The set of the row: its file, its test and its id."""
        return self.file, name_of_test(self.row), self.text("isomer_id")


def validate_isomers(*sources: Source) -> list[Fault]:
    """List the faults of isomer sets, by file and line.

    Args:
        *sources: Files with one JSON object a line, or rows. Several of them are also compared
            with each other, as training and test sets must not share a problem or an id. Sets are
            distinguished by ``isomer_id`` and, where it is there, by the column ``test``: several
            tests are for `poise eval`, and `IGATrainer`, which goes by ``isomer_id``, refuses them.

    Returns:
        The faults and warnings; empty if all is well. A warning is of what `IGATrainer` takes all
        the same, rows without ``options`` alone. Rows that lack a column or have a value of the
        wrong type are named, and not checked further.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no source at all, or one without rows.
    """
    if not sources:
        raise ValueError("isomers: expected at least one file or list of rows, found none")
    faults: list[Fault] = []
    sound: list[_Place] = []
    sets: dict[tuple[str, str, str], list[_Place]] = {}
    domains: dict[tuple[str, str], dict[str, None]] = {}  # of each file and test
    for number, source in enumerate(sources, start=1):
        lines: list[tuple[int, Any]]
        if isinstance(source, str | Path):
            name, lines = str(source), list(read_lines(source))
        else:
            name, lines = "rows" if number == 1 else f"rows {number}", list(enumerate(source, 1))
        if not lines:
            raise ValueError(f"{name}: expected at least one row, found none")
        unread = [(line, row) for line, row in lines if isinstance(row, str)]
        faults += [Fault(name, line, None, "unreadable", row) for line, row in unread]
        places = [_Place(name, line, row) for line, row in lines if not isinstance(row, str)]
        scored = {c for place in places if place.is_scored for c in place.row} & COLUMNS.keys()
        for place in places:
            columns = {*required(places[0].row), *(scored if place.is_scored else ())}
            mistyped = list(_of_types(place, places[0], columns))
            faults += mistyped or _of_row(place)
            if not mistyped:
                sound.append(place)
                sets.setdefault(place.key, []).append(place)
                domains.setdefault(place.key[:2], {})[place.text("domain")] = None
    for key, members in sets.items():
        faults += _of_set(members, domains[key[:2]])
    faults += _shared(sound)
    return sorted(faults, key=lambda fault: (fault.file, fault.line))


def check_isomers(rows: Sequence[Row], name: str = "isomers") -> None:
    """Check rows before training.

    Raises:
        ValueError: they have faults; the first are named, with the way to see all.
    """
    faults = [fault for fault in validate_isomers(rows) if not fault.is_doubtful]
    if faults:
        shown = "; ".join(str(fault).replace("rows, line", "row", 1) for fault in faults[:3])
        raise ValueError(
            f"{name}: expected sound isomer sets, found faults ({len(faults)}): {shown}; "
            "`poise isomers validate FILE` lists them all"
        )


def _of_types(place: _Place, first: _Place, columns: set[str]) -> Iterator[Fault]:
    """Columns that are missing, of a wrong type, or of another one than in the first row, which no
    data set can hold."""
    if TOKENS in columns and not any(mask in place.row for mask in MASKS):
        yield place.fault("missing column", f"{' or '.join(MASKS)} beside {TOKENS}", "neither")
    for column in sorted({"image", "images"} & place.row.keys()):
        yield place.fault("image column", "text alone", f"a column {column}")
    for column in (name for name in (*COLUMNS, TOKENS) if name in columns):
        kind, part_kind = (list, int) if column == TOKENS else (COLUMNS[column], str)
        value, other = (one.row.get(column) for one in (place, first))
        parts = value if isinstance(value, list) and column not in _TEXT else []
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if column not in place.row:
            found = ", ".join(map(str, place.row)) or "no columns"
            yield place.fault("missing column", f"a column {column}", found)
        elif not fits or not all(isinstance(part, part_kind) for part in parts):
            kinds = " or ".join(one.__name__ for one in get_args(kind) or (kind,))
            expected = f"{column} of type {kinds.replace('NoneType', 'null')}"
            yield place.fault("wrong type", expected, repr(value))
        elif column in required(first.row) and type(value) is not type(other):
            expected = f"{column} of type {type(other).__name__}, as in line {first.line}"
            yield place.fault("wrong type", expected, type(value).__name__)
    if TOKENS not in columns and (wrong := text_fault(place.row, _TEXT)):
        yield place.fault("wrong text", wrong)


def _of_row(place: _Place) -> Iterator[Fault]:
    row, right = place.row, place.text("answer_text")
    for column in (*required(row), *(_FILLED if place.is_scored else ())):
        if column in row and not place.text(column).strip():
            yield place.fault("empty", f"a filled {column}", "a blank one")
    if place.is_scored:
        yield from _of_logic(place)
    if TOKENS in row:
        return
    if MARKER in place.text("prompt"):
        yield place.fault("leaked answer", f"a prompt without {MARKER!r}", "one")
    completion = place.text("completion")
    head, found, tail = completion.rpartition(MARKER)
    if not found or not tail.strip() or (right and tail != f" {right}"):
        expected = f"{MARKER} {right or '...'}"
        yield place.fault("wrong ending", repr(expected), repr(completion[-40:]))
    elif not head.strip():
        yield place.fault("no reasoning", "steps before the answer", "none")


def _of_logic(place: _Place) -> Iterator[Fault]:
    row = place.row
    try:
        is_object = isinstance(json.loads(place.text("form")), dict)
    except json.JSONDecodeError:
        is_object = False
    if "form" in row and not is_object:
        yield place.fault("unreadable form", "a JSON object", repr(place.text("form")[:40]))
    options, meanings = row["options"], row.get("meanings")
    if meanings is None:
        return
    if len(options) != len(meanings):
        yield place.fault("options and meanings", "as many", f"{len(options)} and {len(meanings)}")
        return
    for name, values in (("option", options), ("meaning", meanings)):
        if len(set(values)) != len(values):
            yield place.fault("repeated option", f"each {name} once", str(values))
    offered = f"one of {', '.join(meanings)}"
    if "answer" in row and row["answer"] not in meanings:
        yield place.fault("answer not offered", offered, repr(row["answer"]))
    elif "answer" in row and "answer_text" in row:
        right = options[meanings.index(row["answer"])]
        if row["answer_text"] != right:
            yield place.fault("wrong answer text", repr(right), repr(row["answer_text"]))
    if row.get("cue") is not None and row["cue"] not in meanings:
        yield place.fault("unknown cue", offered, repr(row["cue"]))


def _of_set(members: Sequence[_Place], domains: Iterable[str]) -> Iterator[Fault]:
    """What the problems of a set must share and must not, and domains that other sets have."""
    first, there = members[0], {member.text("domain") for member in members}
    if lacking := [domain for domain in domains if domain not in there]:
        yield first.fault("missing domain", ", ".join(domains), f"no {', '.join(lacking)}")
    seen: dict[tuple[str, str], _Place] = {}
    for member in members:
        for column, kind in _SHARED.items():
            if member.row.get(column) != first.row.get(column):
                expected = f"{first.text(column)!r} as on line {first.line}"
                yield member.fault(kind, expected, repr(member.text(column)))
        wording = " ".join(re.findall(r"\w+", member.problem.casefold()))
        for kind, value in (("repeated domain", member.text("domain")), ("same wording", wording)):
            before = seen.setdefault((kind, value), member)
            if before is not member:
                found = f"that of line {before.line} again"
                yield member.fault(kind, f"each {kind.split()[1]} once", found)


def _shared(places: Sequence[_Place]) -> Iterator[Fault]:
    """Sets that share what they must not, in one file or two."""
    known: dict[tuple[str, str], list[_Place]] = {}
    for place in places:
        keys = [
            ("duplicate problem", "a new prompt", place.problem),
            ("reused id", "one form per id", place.text("isomer_id")),
        ]
        if "form" in place.row:
            keys.append(("duplicate form", "a new form", place.text("family") + place.text("form")))
        for kind, expected, value in keys:
            before = known.setdefault((kind, value), [])
            if all(other.key != place.key for other in before):
                before.append(place)
            clash = next((other for other in before if _clash(kind, other, place)), None)
            if clash is not None:
                found = f"that of {clash.file}, line {clash.line} (set {clash.text('isomer_id')})"
                fault, is_one_file = place.fault(kind, expected, found), clash.file == place.file
                yield fault._replace(is_doubtful=fault.is_doubtful and is_one_file)


def _clash(kind: str, first: _Place, second: _Place) -> bool:
    """Whether two places must not share it: two files nothing, sets of a test no form or prompt.

    Two tests of a file have the same sets, so there an id may stand for the same form only.
    """
    if first.file == second.file and first.key[1] != second.key[1]:
        return kind == "reused id" and first.row.get("form") != second.row.get("form")
    return first.key != second.key
