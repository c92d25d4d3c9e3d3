"""Finds what isomer sets share: between files, as training and tests, and within one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .faults import Fault, Place


def find_shared(places: Sequence[Place]) -> Iterator[Fault]:
    """Faults of sets that share what they must not, in one file or two."""
    known: dict[tuple[str, ...], list[Place]] = {}

    def find(*key: str) -> Place | None:
        before = known.setdefault(key, [])
        if all(set_of(other) != set_of(place) for other in before):
            before.append(place)
        return next((other for other in before if _clash(key[0], other, place)), None)

    for place in places:
        if before := find("prompt", place.text("prompt")):
            yield place.fault("duplicate problem", f"expected a new prompt, found {_at(before)}")
        if before := find("id", place.text("isomer_id")):
            yield place.fault("reused id", f"expected one form per id, found that of {_at(before)}")
        if "form" in place.row and (
            before := find("form", place.text("family"), place.text("form"))
        ):
            yield place.fault("duplicate form", f"expected a new form, found that of {_at(before)}")


def _clash(what: str, first: Place, second: Place) -> bool:
    """Whether two places must not share it: two files nothing, sets of a test no form or prompt.

    Two tests of a file tell the same sets, so there an id may stand for the same form only.
    """
    if first.file != second.file:
        return True
    if first.text("test") != second.text("test"):
        return what == "id" and first.row.get("form") != second.row.get("form")
    return set_of(first) != set_of(second)


def set_of(place: Place) -> tuple[str, str, str]:
    """The set of a row: its file, its test and its id."""
    return place.file, place.text("test"), place.text("isomer_id")


def _at(place: Place) -> str:
    return f"{place.file}, line {place.line} (set {place.text('isomer_id')})"
