"""What `poise eval` says about logical isomers: test by test, domain by domain, set by set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..evaluate.by_test import MEAN, Outcome, differences, outcomes
from ..evaluate.consistency import answer_disagreement, has_pairs, logical_consistency
from ..evaluate.outcome_measures import MEASURES, NONE, Measure, OverSeeds, over_seeds, title_of
from ..evaluate.runs import read_config
from ..evaluate.statistics import Difference
from ..evaluate.summary import points
from .eval_run import Result

Outcomes = dict[str, Outcome]


def isomers_as_json(result: Result) -> dict[str, Any]:
    """Measures of isomers beside those of all questions; empty where there are no isomers."""
    questions, vectors = result.evaluation.questions, result.representations
    if not has_pairs(questions):
        return {}
    found = logical_consistency(vectors, result.center) if vectors else None
    return {
        "tests": {test: asdict(outcome) for test, outcome in _outcomes(result).items()},
        "disagreement": asdict(answer_disagreement(questions)),
        "consistency": None if found is None else asdict(found),
        "representations": None
        if vectors is None
        else {**vectors.header.sampling, "center": result.center},
    }


def difference_as_json(first: Result, second: Result, difference: Difference) -> dict[str, Any]:
    """A difference of all questions, and test by test where there are tests."""
    tests = _differences(first, second)
    return {
        "from": first.step.name,
        "to": second.step.name,
        **asdict(difference),
        **({"tests": {test: asdict(found) for test, found in tests.items()}} if tests else {}),
    }


def over_seeds_of(results: Sequence[Result]) -> list[OverSeeds]:
    """The compared runs that repeat one setting, test by test."""
    runs = [result.step.target.run for result in results]
    configs = [read_config(run) if run is not None else {} for run in runs]
    return over_seeds(
        [result.step.name for result in results], configs, [_outcomes(r) for r in results]
    )


def show_isomers(results: Sequence[Result], console: Console) -> None:
    """Print tables by test, models side by side; nothing where there are no tests."""
    found = {result.step.name: _outcomes(result) for result in results}
    tests = list(next(iter(found.values())))
    if not tests:
        return
    for measure in MEASURES:
        if table := _table(measure, tests, found):
            console.print(table)
    if len(results) > 1:
        console.print(_difference_table(results, tests))
    for group in over_seeds_of(results):
        console.print(_seed_table(group))
    console.print(
        "By test: the unit is the isomer set; the mean gives each test out of distribution one "
        "voice. Disagreement and distance: lower is better.",
        style="dim",
    )


def _outcomes(result: Result) -> Outcomes:
    return outcomes(result.evaluation.questions, result.representations, result.center)


def _differences(first: Result, second: Result) -> dict[str, Difference]:
    return differences(first.evaluation.questions, second.evaluation.questions)


def _table(measure: Measure, tests: Sequence[str], found: Mapping[str, Outcomes]) -> Table | None:
    """One measure, a row a test and a column a model; None where no model has it."""
    table = _test_table(measure.title, list(found))
    is_empty = True
    for test in tests:
        cells = [measure.cell(f[test]) if test in f else NONE for f in found.values()]
        is_empty &= all(cell == NONE for cell in cells)
        _add_test(table, test, cells)
    return None if is_empty else table


def _difference_table(results: Sequence[Result], tests: Sequence[str]) -> Table:
    pairs = [(results[0], result) for result in results[1:]]
    pairs += [(results[1], result) for result in results[2:]]
    table = _test_table(
        "Paired differences of avg@k, points", [f"{b.step.name} - {a.step.name}" for a, b in pairs]
    )
    found = [_differences(*pair) for pair in pairs]
    for test in tests:
        _add_test(table, test, [points(f[test].interval) if test in f else NONE for f in found])
    return table


def _seed_table(group: OverSeeds) -> Table:
    title = f"Means of {len(group.runs)} seeds, t-intervals: {', '.join(group.runs)}"
    table = _test_table(title, [measure.title for measure in MEASURES])
    for test, found in group.tests.items():
        _add_test(table, test, [measure.text(found.get(measure.name)) for measure in MEASURES])
    return table


def _test_table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("test")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _add_test(table: Table, test: str, cells: Sequence[str]) -> None:
    """The mean over tests stands apart from them."""
    if test == MEAN:
        table.add_section()
    table.add_row(title_of(test), *cells, style="bold" if test == MEAN else None)
