"""What a setting or a saved state must be, in words and as a test."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

Expected = tuple[str, Callable[[Any], bool]]


def number(words: str, fits: Callable[[Any], bool], *, or_none: bool = False) -> Expected:
    """A finite number that fits; a switch is none."""

    def is_right(value: Any) -> bool:
        if value is None:
            return or_none
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and fits(value)

    return f"{words} or None" if or_none else words, is_right


def whole(least: int) -> Expected:
    """A whole number of at least `least`."""
    words = f"a whole number of at least {least}"
    return number(words, lambda v: isinstance(v, int) and v >= least)


POSITIVE = number("positive", lambda v: v > 0)
POSITIVE_OR_NONE = number("positive", lambda v: v > 0, or_none=True)
AT_LEAST_0 = number("at least 0", lambda v: v >= 0)


def check_ranges(settings: Any, ranges: Mapping[str, Expected]) -> None:
    """Refuses the first setting that is not what it must be.

    Raises:
        ValueError: the setting is named.
    """
    for name, (expected, fits) in ranges.items():
        if not fits(value := getattr(settings, name)):
            raise ValueError(f"{name} must be {expected}, got {value!r}")


def check_state(
    state: Any, names: Collection[str], what: str = "state", optional: Collection[str] = ()
) -> None:
    """Refuses a state without all of these names, or with others.

    Raises:
        ValueError: it has others, or is no mapping.
    """
    found = list(state) if isinstance(state, Mapping) else [type(state).__name__]
    if not isinstance(state, Mapping) or set(found) - set(optional) != set(names):
        raise ValueError(
            f"{what}: expected {', '.join(names)}, found {', '.join(map(str, found)) or 'nothing'};"
            " give what state_dict() returned, whole"
        )
