"""Categories of things, by domain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .biology import BIOLOGY
from .category import Category
from .chemistry import CHEMISTRY
from .materials import MATERIALS
from .physics import PHYSICS

__all__ = ["CATEGORIES", "Category"]

CATEGORIES: Mapping[str, tuple[Category, ...]] = MappingProxyType(
    {
        "chemistry": CHEMISTRY,
        "physics": PHYSICS,
        "biology": BIOLOGY,
        "materials": MATERIALS,
    }
)
