"""Grids of cases of which `make test` runs a few, and `make test-all` the rest too."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest


def grid(cases: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """The cases, those that are not among the quick ones marked slow."""
    return [case if case in quick else _slow(case) for case in cases]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
