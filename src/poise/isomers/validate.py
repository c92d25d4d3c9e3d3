"""Finds what is wrong with isomer sets: in a row, within a set, between sets and files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answers import MARKER
from .forms import Row
from .rows import COLUMNS, REQUIRED

Source = str | Path | Sequence[Mapping[str, Any]]
SetKey = tuple[str, str, str]
_FILLED = (*REQUIRED, "answer", "answer_text", "family", "form")
# Column -> the fault of a set whose rows differ in it.
_SHARED = {
    "answer": "answers disagree",
    "form": "forms differ",
    "family": "families differ",
    "depth": "depths differ",
}
# A set may lack a domain: the mean over domains is over those that are there.
_TOLERATED = "missing domain"
_SHOWN = 3


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        file: Name of the file, or what rows without a file are called.
        line: Line of the file, or number of the row, from 1; None for the file as a whole.
        isomer_id: The set, None if the row names none.
        kind: What is wrong, in a word or two, such as ``"missing domain"``.
        text: What was expected and what was found.
    """

    file: str
    line: int | None
    isomer_id: str | None
    kind: str
    text: str

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        one = "" if self.isomer_id is None else f", set {self.isomer_id}"
        return f"{self.file}{line}{one}: {self.kind}: {self.text}"


@dataclass(frozen=True)
class _Place:
    """A row and where it stands."""

    file: str
    line: int
    row: Mapping[str, Any] = field(repr=False)

    def fault(self, kind: str, text: str) -> Fault:
        name = self.row.get("isomer_id")
        return Fault(self.file, self.line, name if isinstance(name, str) else None, kind, text)

    def text(self, column: str) -> str:
        """A column's value as text, empty if it is not there."""
        value = self.row.get(column)
        return "" if value is None else str(value)

    @property
    def key(self) -> SetKey:
        """The set of the row: its file, its test and its id."""
        return self.file, self.text("test"), self.text("isomer_id")

    def __str__(self) -> str:
        return f"{self.file}, line {self.line} (set {self.text('isomer_id')})"


def validate_isomers(*sources: Source) -> list[Fault]:
    """List the faults of isomer sets, by file and line.

    Args:
        *sources: Files with one JSON object a line, or rows. Several of them are also compared
            with each other, as training and test sets must not share a problem or an id. Sets are
            distinguished by ``isomer_id`` and, where it is there, by the column ``test``.

    Returns:
        The faults; empty if all is well. Rows that cannot be read, lack a column or have a value
        of the wrong type are named, and not checked further.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no source at all.
    """
    if not sources:
        raise ValueError("isomers: expected at least one file or list of rows, found none")
    faults: list[Fault] = []
    sound: list[_Place] = []
    for number, source in enumerate(sources, start=1):
        places = _read(source, number, faults)
        columns = {column for place in places for column in place.row if column in COLUMNS}
        for place in places:
            found = list(_of_types(place, columns))
            faults += found
            if not found:
                faults += _of_row(place)
                sound.append(place)
    sets: dict[SetKey, list[_Place]] = {}
    for place in sound:
        sets.setdefault(place.key, []).append(place)
    faults += _missing_domains(sets)
    for members in sets.values():
        faults += _of_set(members)
    faults += _shared(sound)
    return sorted(faults, key=lambda fault: (fault.file, fault.line or 0))


def check_isomers(rows: Sequence[Row], name: str = "isomers") -> None:
    """Check rows before training; a set may lack a domain.

    Raises:
        ValueError: they have faults; the first are named, with the way to see all.
    """
    faults = [fault for fault in validate_isomers(rows) if fault.kind != _TOLERATED]
    if faults:
        shown = "; ".join(str(fault).replace("rows, line", "row", 1) for fault in faults[:_SHOWN])
        raise ValueError(
            f"{name}: expected sound isomer sets, found faults ({len(faults)}): {shown}; "
            "`poise isomers validate FILE` lists them all"
        )


def _read(source: Source, number: int, faults: list[Fault]) -> list[_Place]:
    """The rows of a source; lines that are none are added to the faults."""
    before = len(faults)
    if not isinstance(source, str | Path):
        name = "rows" if number == 1 else f"rows {number}"
        places = [_Place(name, line, row) for line, row in enumerate(source, start=1)]
    else:
        name, path, places = str(source), Path(source), []
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a .jsonl file, found no file there")
        for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
            if not raw.strip():
                continue
            kind, found = "not an object", ""
            try:
                row = json.loads(raw.decode())
                found = type(row).__name__
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                row, kind, found = None, "unreadable", f"text that cannot be read ({error})"
            if isinstance(row, dict):
                places.append(_Place(name, line, row))
            else:
                text = f"expected a JSON object, found {found}"
                faults.append(Fault(name, line, None, kind, text))
    if not places and len(faults) == before:
        faults.append(Fault(name, None, None, "no rows", "expected at least one row, found none"))
    return places


def _of_types(place: _Place, columns: set[str]) -> Iterator[Fault]:
    """Columns that are missing or of a wrong type."""
    for column, kind in COLUMNS.items():
        if column not in place.row:
            if column in columns or column in REQUIRED:
                found = ", ".join(map(str, place.row)) or "no columns"
                yield place.fault("missing column", f"expected a column {column}, found {found}")
            continue
        value = place.row[column]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if isinstance(value, list):
            fits = fits and all(isinstance(part, str) for part in value)
        if not fits:
            kinds = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            text = f"expected {column} of type {expected}, found {value!r}"
            yield place.fault("wrong type", text)


def _of_row(place: _Place) -> Iterator[Fault]:
    for column in _FILLED:
        if column in place.row and not place.text(column).strip():
            yield place.fault("empty", f"expected a filled {column}, found a blank one")
    if "form" in place.row:
        yield from _of_form(place)
    if "options" in place.row and "meanings" in place.row:
        yield from _of_options(place)
    if MARKER in place.text("prompt"):
        yield place.fault("leaked answer", f"expected a prompt without {MARKER!r}, found one")
    completion, right = place.text("completion"), place.text("answer_text")
    head, found, tail = completion.rpartition(MARKER)
    if not found or not tail.strip() or (right and tail != f" {right}"):
        expected = f"{MARKER} {right or '...'}"
        yield place.fault("wrong ending", f"expected {expected!r}, found {completion[-40:]!r}")
    elif not head.strip():
        yield place.fault("no reasoning", "expected steps before the answer, found none")


def _of_form(place: _Place) -> Iterator[Fault]:
    try:
        form = json.loads(place.text("form"))
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, dict):
        found = place.text("form")[:40]
        yield place.fault("unreadable form", f"expected a JSON object, found {found!r}")


def _of_options(place: _Place) -> Iterator[Fault]:
    row, options, meanings = place.row, place.row["options"], place.row["meanings"]
    if len(options) != len(meanings):
        text = f"expected as many, found {len(options)} and {len(meanings)}"
        yield place.fault("options and meanings", text)
        return
    for name, values in (("option", options), ("meaning", meanings)):
        for value, times in Counter(values).items():
            if times > 1:
                text = f"expected each {name} once, found {value!r} {times} times"
                yield place.fault("repeated option", text)
    offered = f"expected one of {', '.join(meanings)}, found "
    if "answer" in row and row["answer"] not in meanings:
        yield place.fault("answer not offered", f"{offered}{row['answer']!r}")
    elif "answer" in row and "answer_text" in row:
        right = options[meanings.index(row["answer"])]
        if row["answer_text"] != right:
            text = f"expected {right!r}, found {row['answer_text']!r}"
            yield place.fault("wrong answer text", text)
    if row.get("cue") is not None and row["cue"] not in meanings:
        yield place.fault("unknown cue", f"{offered}{row['cue']!r}")


def _missing_domains(sets: Mapping[SetKey, Sequence[_Place]]) -> Iterator[Fault]:
    """Domains that other sets of the same file and test have."""
    known: dict[tuple[str, str], dict[str, None]] = {}
    for (file, test, _), members in sets.items():
        known.setdefault((file, test), {}).update((m.text("domain"), None) for m in members)
    for (file, test, _), members in sets.items():
        there = {member.text("domain") for member in members}
        lacking = [domain for domain in known[file, test] if domain not in there]
        if lacking:
            text = f"expected {', '.join(known[file, test])}, found no {', '.join(lacking)}"
            yield members[0].fault("missing domain", text)


def _of_set(members: Sequence[_Place]) -> Iterator[Fault]:
    """What the problems of a set must share, and what they must not."""
    first = members[0]
    for member in members[1:]:
        for column, kind in _SHARED.items():
            if member.row.get(column) != first.row.get(column):
                text = f"expected {first.text(column)!r} as on line {first.line}, found "
                yield member.fault(kind, text + repr(member.text(column)))
    yield from _repeats(members, lambda m: m.text("domain"), "repeated domain", "domain")
    yield from _repeats(members, _wording, "same wording", "wording")


def _wording(place: _Place) -> str:
    return " ".join(re.findall(r"\w+", place.text("prompt").casefold()))


def _repeats(
    places: Sequence[_Place], key: Callable[[_Place], str], kind: str, what: str
) -> Iterator[Fault]:
    seen: dict[str, _Place] = {}
    for place in places:
        before = seen.setdefault(key(place), place)
        if before is not place:
            shown = f" {key(place)!r}" if what == "domain" else ""
            text = f"expected each {what} once, found{shown} that of line {before.line} again"
            yield place.fault(kind, text)


def _shared(places: Sequence[_Place]) -> Iterator[Fault]:
    """Sets that share what they must not, in one file or two."""
    known: dict[tuple[str, ...], list[_Place]] = {}
    for place in places:
        keys = [
            ("prompt", "duplicate problem", "a new prompt", place.text("prompt")),
            ("id", "reused id", "one form per id", place.text("isomer_id")),
        ]
        if "form" in place.row:
            form = (place.text("family"), place.text("form"))
            keys.append(("form", "duplicate form", "a new form", repr(form)))
        for what, kind, expected, value in keys:
            before = known.setdefault((what, value), [])
            if all(other.key != place.key for other in before):
                before.append(place)
            clash = next((other for other in before if _clash(what, other, place)), None)
            if clash is not None:
                yield place.fault(kind, f"expected {expected}, found that of {clash}")


def _clash(what: str, first: _Place, second: _Place) -> bool:
    """Whether two places must not share it: two files nothing, sets of a test no form or prompt.

    Two tests of a file have the same sets, so there an id may stand for the same form only.
    """
    if first.file != second.file:
        return True
    if first.text("test") != second.text("test"):
        return what == "id" and first.row.get("form") != second.row.get("form")
    return first.key != second.key
