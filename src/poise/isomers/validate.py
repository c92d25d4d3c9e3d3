"""Finds what is wrong with isomer sets: in a row, within a set, between sets and files."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .answers import MARKER
from .faults import Fault, Place
from .leaks import find_shared, set_of
from .rows import COLUMNS, REQUIRED

Source = str | Path | Sequence[Mapping[str, Any]]
_FILLED = (*REQUIRED, "answer", "answer_text", "family", "form")


def validate_isomers(*sources: Source) -> list[Fault]:
    """List the faults of isomer sets, by file and line.

    Args:
        *sources: Files with one JSON object a line, or rows. Several of them are also compared
            with each other, as training and test sets must not share a problem or an id. Sets are
            told apart by ``isomer_id`` and, where it is there, by the column ``test``.

    Returns:
        The faults; empty if all is well. Rows that cannot be read, lack a column or have a value
        of the wrong type are named and left out of all further checks.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: no source at all.
    """
    if not sources:
        raise ValueError("isomers: expected at least one file or list of rows, found none")
    faults: list[Fault] = []
    sound: list[Place] = []
    for number, source in enumerate(sources, start=1):
        places = _read(source, number, faults)
        columns = {column for place in places for column in place.row if column in COLUMNS}
        for place in places:
            found = list(_of_types(place, columns))
            faults += found
            if not found:
                faults += _of_row(place)
                sound.append(place)
    sets = _group(sound)
    faults += _missing_domains(sets)
    for members in sets.values():
        faults += _of_set(members)
    faults += find_shared(sound)
    return sorted(faults, key=lambda fault: (fault.file, fault.line or 0))


def _read(source: Source, number: int, faults: list[Fault]) -> list[Place]:
    if not isinstance(source, str | Path):
        name = "rows" if number == 1 else f"rows {number}"
        places = [Place(name, line, dict(row)) for line, row in enumerate(source, start=1)]
    else:
        name, path = str(source), Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a .jsonl file, found no file there")
        places = []
        for line, raw in enumerate(path.read_bytes().splitlines(), start=1):
            row = _parse(raw, name, line, faults) if raw.strip() else None
            if row is not None:
                places.append(Place(name, line, row))
        if not places and any(fault.file == name for fault in faults):
            return places
    if not places:
        faults.append(Fault(name, None, None, "no rows", "expected at least one row, found none"))
    return places


def _parse(raw: bytes, name: str, line: int, faults: list[Fault]) -> dict[str, Any] | None:
    try:
        row = json.loads(raw.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        text = f"expected a JSON object, found text that cannot be read ({error})"
        faults.append(Fault(name, line, None, "unreadable", text))
        return None
    if not isinstance(row, dict):
        text = f"expected a JSON object, found {type(row).__name__}"
        faults.append(Fault(name, line, None, "not an object", text))
        return None
    return row


def _of_types(place: Place, columns: set[str]) -> Iterator[Fault]:
    """Columns that are missing or of a wrong type."""
    for column in COLUMNS:
        if column not in place.row:
            if column in columns or column in REQUIRED:
                found = ", ".join(map(str, place.row)) or "no columns"
                yield place.fault("missing column", f"expected a column {column}, found {found}")
            continue
        value, kind = place.row[column], COLUMNS[column]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if isinstance(value, list):
            fits = fits and all(isinstance(part, str) for part in value)
        if not fits:
            kinds = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join("null" if k is type(None) else k.__name__ for k in kinds)
            text = f"expected {column} of type {expected}, found {value!r}"
            yield place.fault("wrong type", text)


def _of_row(place: Place) -> Iterator[Fault]:
    for column in _FILLED:
        if column in place.row and not place.text(column).strip():
            yield place.fault("empty", f"expected a filled {column}, found a blank one")
    if "form" in place.row:
        yield from _of_form(place)
    if "options" in place.row and "meanings" in place.row:
        yield from _of_options(place)
    if MARKER in place.text("prompt"):
        yield place.fault("leaked answer", f"expected a prompt without {MARKER!r}, found one")
    completion = place.text("completion")
    head, found, tail = completion.rpartition(MARKER)
    told = place.text("answer_text")
    if not found or not tail.strip() or (told and tail != f" {told}"):
        expected = f"{MARKER} {told or '...'}"
        yield place.fault("wrong ending", f"expected {expected!r}, found {completion[-40:]!r}")
    elif not head.strip():
        yield place.fault("no reasoning", "expected steps before the answer, found none")


def _of_form(place: Place) -> Iterator[Fault]:
    try:
        form = json.loads(place.text("form"))
    except json.JSONDecodeError:
        form = None
    if not isinstance(form, dict):
        found = place.text("form")[:40]
        yield place.fault("unreadable form", f"expected a JSON object, found {found!r}")


def _of_options(place: Place) -> Iterator[Fault]:
    options, meanings = _listed(place, "options"), _listed(place, "meanings")
    if len(options) != len(meanings):
        text = f"expected as many, found {len(options)} and {len(meanings)}"
        yield place.fault("options and meanings", text)
        return
    for name, values in (("option", options), ("meaning", meanings)):
        for value, times in Counter(values).items():
            if times > 1:
                text = f"expected each {name} once, found {value!r} {times} times"
                yield place.fault("repeated option", text)
    if "answer" in place.row and place.row["answer"] not in meanings:
        text = f"expected one of {', '.join(meanings)}, found {place.text('answer')!r}"
        yield place.fault("answer not offered", text)
    elif "answer" in place.row and "answer_text" in place.row:
        right = options[meanings.index(place.text("answer"))]
        if place.row["answer_text"] != right:
            text = f"expected {right!r}, found {place.text('answer_text')!r}"
            yield place.fault("wrong answer text", text)
    cue = place.row.get("cue")
    if cue is not None and cue not in meanings:
        yield place.fault("unknown cue", f"expected one of {', '.join(meanings)}, found {cue!r}")


def _listed(place: Place, column: str) -> list[str]:
    value = place.row[column]
    return list(value) if isinstance(value, list) else []


def _group(places: Sequence[Place]) -> dict[tuple[str, ...], list[Place]]:
    """Rows by file, test and set."""
    sets: dict[tuple[str, ...], list[Place]] = {}
    for place in places:
        sets.setdefault(set_of(place), []).append(place)
    return sets


def _missing_domains(sets: Mapping[tuple[str, ...], Sequence[Place]]) -> Iterator[Fault]:
    """Domains that other sets of the same file and test have."""
    known: dict[tuple[str, ...], list[str]] = {}
    for (*where, _), members in sets.items():
        domains = known.setdefault(tuple(where), [])
        domains += [d for d in (m.text("domain") for m in members) if d not in domains]
    for (*where, _), members in sets.items():
        there = {member.text("domain") for member in members}
        lacking = [domain for domain in known[tuple(where)] if domain not in there]
        if lacking:
            text = f"expected {', '.join(known[tuple(where)])}, found no {', '.join(lacking)}"
            yield members[0].fault("missing domain", text)


def _of_set(members: Sequence[Place]) -> Iterator[Fault]:
    """What the problems of a set must share, and what they must not."""
    same = {"answer": "answers disagree", "form": "forms differ"} | {
        "family": "families differ",
        "depth": "depths differ",
    }
    first = members[0]
    for member in members[1:]:
        for column, kind in same.items():
            if member.row.get(column) != first.row.get(column):
                text = f"expected {first.text(column)!r} as on line {first.line}, found "
                yield member.fault(kind, text + repr(member.text(column)))
    yield from _repeats(members, lambda m: m.text("domain"), "repeated domain", "domain")
    yield from _repeats(members, _wording, "same wording", "wording")


def _wording(place: Place) -> str:
    return " ".join(re.findall(r"\w+", place.text("prompt").casefold()))


def _repeats(
    places: Sequence[Place], key: Callable[[Place], str], kind: str, what: str
) -> Iterator[Fault]:
    seen: dict[str, Place] = {}
    for place in places:
        before = seen.setdefault(key(place), place)
        if before is not place:
            shown = f" {key(place)!r}" if what == "domain" else ""
            text = f"expected each {what} once, found{shown} that of line {before.line} again"
            yield place.fault(kind, text)
