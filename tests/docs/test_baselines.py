"""The page on IGA names each baseline with its options and their defaults."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from poise.iga.baselines import BASELINES

PAGE = Path(__file__).parents[2] / "docs" / "iga.md"


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_described_with_its_options(name: str) -> None:
    (row,) = (line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
    options = row.split("|")[3].replace(",", " ").split()
    kind = BASELINES[name]
    own = () if kind is None else kind.options()
    defaults = {field.name: field.default for field in fields(kind)} if kind else {}
    assert sorted(options) == sorted(f"`{option}={defaults[option]}`" for option in own)
