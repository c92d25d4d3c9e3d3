"""The tables of the experiments are those that their result lines give."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import markdown, specification, tables
from lab.results import Results

ROOT = Path(__file__).parents[2]
RESULTS = sorted({file.parent for file in (ROOT / "experiments").glob("*/results.jsonl*")})


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_a_table_is_what_its_results_give(folder: Path) -> None:
    experiment = specification.load(folder)
    records, damaged = Results(folder).read()
    assert damaged == []
    found = markdown.page(experiment, records, tables.build(experiment, records))
    assert found == (folder / "table.md").read_text(encoding="utf-8"), (
        f"python -m lab table {experiment.name}"
    )
