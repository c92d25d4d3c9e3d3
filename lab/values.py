"""Checks of values that were read from YAML; each raises a ValueError that says where."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

_NUMBER = re.compile(r"[+-]?\d[\d_]*\.?\d*([eE][+-]?\d+)?")


def plain(value: Any, where: str) -> None:
    """Refuse what is no JSON, and numbers that YAML takes for text.

    Raises:
        ValueError: it is one of these; `where` is the message's beginning.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: expected numbers, texts, lists or null, found {value!r}"
        ) from None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        raise ValueError(
            f"{where}: expected a number, found the text {value!r}; YAML wants a point and a sign "
            "in numbers with an exponent: 1.0e-3"
        )
    for part in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        plain(part, where)


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """The value.

    Raises:
        ValueError: it has no names.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected names with values, found {value!r}")
    return value


def known(found: Collection[Any], names: Collection[str], where: str) -> None:
    """Refuse names that are not known.

    Raises:
        ValueError: one is not; the message says which is near.
    """
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
            raise ValueError(f"{where}: unknown name {name!r}; {hint}")


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)
