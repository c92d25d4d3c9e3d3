"""All families of logical form. A new one is a module with an object `FAMILY`, named here."""

from __future__ import annotations

from importlib import import_module

from ..forms import Family

_NAMES = (
    *("ordering", "implication", "syllogism", "branching"),
    *("rates", "two_unknowns", "counting", "state_changes"),
)
# Name -> family.
FAMILIES: dict[str, Family] = {n: import_module(f"{__name__}.{n}").FAMILY for n in _NAMES}
