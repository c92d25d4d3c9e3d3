"""All families of logical form. A new one is a module with an object `FAMILY`, named here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ...rows import check_some
from ..forms import Family
from . import (
    branching,
    counting,
    implication,
    ordering,
    rates,
    state_changes,
    syllogism,
    two_unknowns,
)

_MODULES = (
    *(ordering, implication, syllogism, branching),
    *(rates, two_unknowns, counting, state_changes),
)
# Name -> family. Read only.
FAMILIES: Mapping[str, Family] = MappingProxyType(
    {module.FAMILY.name: module.FAMILY for module in _MODULES}
)


def get_families(names: Sequence[str] | None = None) -> tuple[Family, ...]:
    """Families by name; all of them if no names are given.

    Raises:
        ValueError: an unknown name, a name twice, or an empty list.
    """
    if names is None:
        return tuple(FAMILIES.values())
    check_some("families", names, FAMILIES)
    return tuple(FAMILIES[name] for name in names)
