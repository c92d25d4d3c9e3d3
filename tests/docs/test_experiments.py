"""The tables of the experiments are those that their result lines give."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import page, specification, tables
from lab.results import Results

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "experiments").glob("*/results.jsonl"))


def test_there_are_results() -> None:
    assert RESULTS


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.parent.name)
def test_a_table_is_what_its_results_give(file: Path) -> None:
    experiment = specification.load(file.parent)
    records, damaged = Results(file.parent).read()
    assert damaged == []
    found = page.markdown(experiment, records, tables.build(experiment, records))
    assert found == file.with_name("table.md").read_text(encoding="utf-8"), (
        f"python -m lab table {experiment.name}"
    )
