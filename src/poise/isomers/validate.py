"""Finds what is wrong with isomer sets: in a row, within a set, between sets and files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
# Kinds that are doubtful, and no fault.
_DOUBTFUL = (
    *("missing domain", "leaked answer", "same wording"),
    *("duplicate problem", "duplicate form"),  # in one file
)
_SHOWN = 3


class Fault(NamedTuple):
    """One thing that is wrong, or doubtful: that can be trained on, and may be meant so.

    Args:
        file: Name of the file, or what rows without a file are called.
        line: Line of the file, or number of the row, from 1.
        isomer_id: The set, None if the row names none.
        kind: What is wrong, in a word or two, such as ``"missing domain"``.
        text: What was expected and what was found.
        is_doubtful: Whether it is a warning alone.
    """

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

    def fault(self, kind: str, expected: str, found: Any, is_refused: bool = False) -> Fault:
        """A fault, or a warning: without options no logic is scored, so none need be sound."""
        is_sound = kind in _REFUSED or is_refused or (self.is_scored and kind not in _DOUBTFUL)
        return self._fault(kind, f"expected {expected}, found {found}", not is_sound)

    def text_fault(self) -> Fault | None:
        """A prompt or completion that cannot be trained on."""
        text = text_fault(self.row, _TEXT)
        return None if text is None else self._fault("wrong text", text)

    def _fault(self, kind: str, text: str, is_doubtful: bool = False) -> Fault:
        name = self.row.get("isomer_id")
        isomer = str(name) if isinstance(name, str | int) else None
        return Fault(self.file, self.line, isomer, kind, text, is_doubtful)

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
    def test(self) -> tuple[str, str]:
        return self.file, name_of_test(self.row)

    @property
    def key(self) -> tuple[str, str, str]:
        """The set of the row: its file, its test and its id."""
        return *self.test, self.text("isomer_id")


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
    for number, source in enumerate(sources, start=1):
        places = _read(source, number, faults)
        scored = {c for place in places if place.is_scored for c in place.row} & COLUMNS.keys()
        for place in places:
            columns = {*required(places[0].row), *(scored if place.is_scored else ())}
            mistyped = list(_of_types(place, columns)) or list(_unlike(place, places[0]))
            faults += mistyped or _of_row(place)
            if not mistyped:
                sound.append(place)
    sets: dict[tuple[str, str, str], list[_Place]] = {}
    for place in sound:
        sets.setdefault(place.key, []).append(place)
    faults += _missing_domains(sets.values())
    for members in sets.values():
        faults += _of_set(members)
    faults += _shared(sound)
    return sorted(faults, key=lambda fault: (fault.file, fault.line))


def check_isomers(rows: Sequence[Row], name: str = "isomers") -> None:
    """Check rows before training.

    Raises:
        ValueError: they have faults; the first are named, with the way to see all.
    """
    faults = [fault for fault in validate_isomers(rows) if not fault.is_doubtful]
    if faults:
        shown = "; ".join(str(fault).replace("rows, line", "row", 1) for fault in faults[:_SHOWN])
        raise ValueError(
            f"{name}: expected sound isomer sets, found faults ({len(faults)}): {shown}; "
            "`poise isomers validate FILE` lists them all"
        )


def _read(source: Source, number: int, faults: list[Fault]) -> list[_Place]:
    """The rows of a source; lines that are none are added to the faults."""
    if isinstance(source, str | Path):
        name, lines = str(source), list(read_lines(source))
        if not lines:
            raise ValueError(f"{name}: expected at least one row, found none")
        faults += [
            Fault(name, line, None, "unreadable", row)
            for line, row in lines
            if isinstance(row, str)
        ]
        return [_Place(name, line, row) for line, row in lines if not isinstance(row, str)]
    name = "rows" if number == 1 else f"rows {number}"
    if not source:
        raise ValueError(f"{name}: expected at least one row, found none")
    return [_Place(name, line, row) for line, row in enumerate(source, start=1)]


def _of_types(place: _Place, columns: set[str]) -> Iterator[Fault]:
    """Columns that are missing or of a wrong type."""
    if TOKENS in columns and not any(mask in place.row for mask in MASKS):
        yield place.fault("missing column", f"{' or '.join(MASKS)} beside {TOKENS}", "neither")
    for column in ("image", "images"):
        if column in place.row:
            yield place.fault("image column", "text alone", f"a column {column}")
    kinds_of: dict[str, type | tuple[type, ...]] = {**COLUMNS, TOKENS: list}
    for column, kind in kinds_of.items():
        if column not in columns:
            continue
        if column not in place.row:
            found = ", ".join(map(str, place.row)) or "no columns"
            yield place.fault("missing column", f"a column {column}", found)
            continue
        value = place.row[column]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if isinstance(value, list) and column not in _TEXT:
            part_kind = int if column == TOKENS else str
            fits = fits and all(isinstance(part, part_kind) for part in value)
        if not fits:
            kinds = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            yield place.fault("wrong type", f"{column} of type {expected}", repr(value))
    if TOKENS not in columns and (fault := place.text_fault()):
        yield fault


def _unlike(place: _Place, first: _Place) -> Iterator[Fault]:
    """Columns of another type than in the first row, which no data set can hold."""
    for column in required(first.row):
        own, other = (type(p.row.get(column)).__name__ for p in (place, first))
        if own != other:
            expected = f"{column} of type {other}, as in line {first.line}"
            yield place.fault("wrong type", expected, own)


def _of_row(place: _Place) -> Iterator[Fault]:
    row = place.row
    for column in (*required(row), *(_FILLED if place.is_scored else ())):
        if column in row and not place.text(column).strip():
            yield place.fault("empty", f"a filled {column}", "a blank one")
    if place.is_scored and "form" in row and not _is_object(place.text("form")):
        yield place.fault("unreadable form", "a JSON object", repr(place.text("form")[:40]))
    if place.is_scored and "meanings" in row:
        yield from _of_options(place)
    if TOKENS in row:
        return
    if MARKER in place.text("prompt"):
        yield place.fault("leaked answer", f"a prompt without {MARKER!r}", "one")
    completion, right = place.text("completion"), place.text("answer_text")
    head, found, tail = completion.rpartition(MARKER)
    if not found or not tail.strip() or (right and tail != f" {right}"):
        expected = f"{MARKER} {right or '...'}"
        yield place.fault("wrong ending", repr(expected), repr(completion[-40:]))
    elif not head.strip():
        yield place.fault("no reasoning", "steps before the answer", "none")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


def _of_options(place: _Place) -> Iterator[Fault]:
    row, options, meanings = place.row, place.row["options"], place.row["meanings"]
    if len(options) != len(meanings):
        yield place.fault("options and meanings", "as many", f"{len(options)} and {len(meanings)}")
        return
    for name, values in (("option", options), ("meaning", meanings)):
        if len(set(values)) != len(values):
            yield place.fault("repeated option", f"each {name} once", values)
    offered = f"one of {', '.join(meanings)}"
    if "answer" in row and row["answer"] not in meanings:
        yield place.fault("answer not offered", offered, repr(row["answer"]))
    elif "answer" in row and "answer_text" in row:
        right = options[meanings.index(row["answer"])]
        if row["answer_text"] != right:
            yield place.fault("wrong answer text", repr(right), repr(row["answer_text"]))
    if row.get("cue") is not None and row["cue"] not in meanings:
        yield place.fault("unknown cue", offered, repr(row["cue"]))


def _missing_domains(sets: Collection[Sequence[_Place]]) -> Iterator[Fault]:
    """Domains that other sets of the same file and test have."""
    known: dict[tuple[str, str], dict[str, None]] = {}
    for members in sets:
        known.setdefault(members[0].test, {}).update((m.text("domain"), None) for m in members)
    for members in sets:
        domains, there = known[members[0].test], {member.text("domain") for member in members}
        lacking = [domain for domain in domains if domain not in there]
        if lacking:
            found = f"no {', '.join(lacking)}"
            yield members[0].fault("missing domain", ", ".join(domains), found)


def _of_set(members: Sequence[_Place]) -> Iterator[Fault]:
    """What the problems of a set must share, and what they must not."""
    first = members[0]
    for member in members[1:]:
        for column, kind in _SHARED.items():
            if member.row.get(column) != first.row.get(column):
                expected = f"{first.text(column)!r} as on line {first.line}"
                yield member.fault(kind, expected, repr(member.text(column)))
    yield from _repeats(members, lambda m: m.text("domain"), "domain")
    yield from _repeats(members, _wording, "wording")


def _wording(place: _Place) -> str:
    return " ".join(re.findall(r"\w+", place.problem.casefold()))


def _repeats(
    places: Sequence[_Place], value: Callable[[_Place], str], what: str
) -> Iterator[Fault]:
    seen: dict[str, _Place] = {}
    kind = {"domain": "repeated domain", "wording": "same wording"}[what]
    for place in places:
        before = seen.setdefault(value(place), place)
        if before is not place:
            yield place.fault(kind, f"each {what} once", f"that of line {before.line} again")


def _shared(places: Sequence[_Place]) -> Iterator[Fault]:
    """Sets that share what they must not, in one file or two."""
    known: dict[tuple[str, ...], list[_Place]] = {}
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
                yield place.fault(kind, expected, found, is_refused=clash.file != place.file)


def _clash(kind: str, first: _Place, second: _Place) -> bool:
    """Whether two places must not share it: two files nothing, sets of a test no form or prompt.

    Two tests of a file have the same sets, so there an id may stand for the same form only.
    """
    if first.file != second.file:
        return True
    if first.test != second.test:
        return kind == "reused id" and first.row.get("form") != second.row.get("form")
    return first.key != second.key
