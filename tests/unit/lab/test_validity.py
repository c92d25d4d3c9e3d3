"""Validity rules: looked at first, and nothing is compared where one does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import markdown, runner, tables, validity
from lab.results import Results
from lab.specification import ExperimentError

from .toys import run_missing, toy

METHODS: dict[str, Any] = {"plain": {}, "shifted": {"shift": 1}, "oracle": {"shift": 5}}


def experiment(folder: Path, **bounds: float) -> Any:
    rule = {"method": "oracle", "figure": "score", **bounds}
    return toy(folder, methods=METHODS, baseline="plain", validity=[rule])


def test_the_runs_of_a_rule_come_first_and_the_others_follow_where_it_holds(tmp_path: Path) -> None:
    made = experiment(tmp_path, at_least=5)
    methods = [outcome.run.place["method"] for outcome in run_missing(made)]
    assert methods == ["oracle"] * 3 + ["plain", "shifted"] * 3
    records, _ = Results(made.folder).read()
    sections = tables.build(made, records)
    assert tables.comparisons(sections) == 2
    assert "Validity rule: holds. score of oracle: expected at least 5" in markdown.page(
        made, records, sections
    )


def test_where_it_does_not_hold_nothing_else_is_run_or_compared(tmp_path: Path) -> None:
    made = experiment(tmp_path, at_most=1)
    with pytest.raises(ValueError, match="score of oracle: expected at most 1, found"):
        run_missing(made)
    assert {run.place["method"] for run in runner.missing(made)} == {"plain", "shifted"}
    run_missing(experiment(tmp_path, at_least=5))
    records, _ = Results(made.folder).read()
    sections = tables.build(made, records)
    assert tables.comparisons(sections) == 0
    assert "does NOT hold" in markdown.page(made, records, sections)


def test_a_rule_without_all_its_runs_does_not_hold(tmp_path: Path) -> None:
    made = experiment(tmp_path, at_least=5)
    run_missing(made, limit=2)
    records, _ = Results(made.folder).read()
    (verdict,) = validity.verdicts(made, records)
    assert not verdict.holds and "1 runs missing" in str(verdict)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"method": "none", "figure": "score", "at_least": 1}, "none"),
        ({"method": "oracle", "figure": "score"}, "at_least or at_most"),
        ({"method": "oracle", "figure": "score", "at_least": "1"}, "at_least: expected a number"),
        ({"method": "oracle", "figure": "score", "atleast": 1}, "atleast"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, rule: Any, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        toy(tmp_path, methods=METHODS, validity=[rule])
