"""One file a study, with `run(config) -> figures`.

`config` holds the settings of one run: those that are fixed, the axes' values, the method's own,
and `method` and `seed`. `figures` are plain JSON values by name: numbers for tables (None where
there is none; never NaN), anything else for later reading. `check(config)`, if a study has it,
raises ValueError for settings that it does not take, and `check_data(config)` for data that it does
not find; both are asked before anything runs.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """The studies that there are."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def require(name: str, where: str) -> None:
    """Refuse a study that does not exist.

    Raises:
        ValueError: it does not; `where` says who asks.
    """
    if name not in names():
        near = difflib.get_close_matches(str(name), names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names())}"
        raise ValueError(f"{where}: unknown study {name!r}; {hint}")


def load(name: str) -> ModuleType:
    """The module of a study.

    Raises:
        ValueError: there is no such study.
    """
    require(name, "study")
    return importlib.import_module(f"{__name__}.{name}")
