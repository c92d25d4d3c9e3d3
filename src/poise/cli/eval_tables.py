"""What `poise eval` prints: accuracy, domain by domain, and of isomers test by test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..evaluate.isomers import (
    MEAN,
    MEASURES,
    NONE,
    Outcome,
    answer_disagreement,
    differences,
    has_pairs,
    logical_consistency,
    measures_over_seeds,
    outcomes,
    title_of,
)
from ..evaluate.measures import (
    average_interval,
    compare,
    described,
    group_by,
    p_value,
    percent,
    points,
    summarise,
)
from ..evaluate.runs import over_seeds, read_config
from ..evaluate.statistics import Difference, Interval, run_interval
from .eval import Result

_WIDTH = 120  # of tables in a file or a pipe, where there is no terminal to fit

Seeds = list[tuple[tuple[str, ...], Interval]]
TestSeeds = list[tuple[tuple[str, ...], dict[str, dict[str, Interval]]]]


def show_json(results: Sequence[Result]) -> None:
    """Print one object: settings, each model's measures, each difference to the first."""
    print(json.dumps(as_json(results), ensure_ascii=False))


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """What `--json` prints."""
    header = results[0].evaluation.header
    found = _outcomes(results)
    return {
        "dataset": header.dataset,
        "split": header.split,
        "selection": dict(header.selection),
        "sampling": dict(header.sampling),
        "seed": header.seed,
        "evaluations": [
            {
                "name": result.step.name,
                "model": result.step.target.model,
                "adapter": result.step.target.adapter,
                "records": [str(file) for file in result.step.files],
                **summarise(result.evaluation.questions).as_json(),
                **_isomers_as_json(result, tests),
            }
            for result, tests in zip(results, found, strict=True)
        ],
        "differences": [_difference_as_json(results[0], result) for result in results[1:]],
        "between": [_difference_as_json(results[1], result) for result in results[2:]],
        "over_runs": [
            {"runs": runs, "interval": asdict(interval)} for runs, interval in _over_runs(results)
        ],
        "over_seeds": [
            {"runs": runs, "tests": _plain(tests)} for runs, tests in _tests_over(results, found)
        ],
    }


def _isomers_as_json(result: Result, tests: dict[str, Outcome]) -> dict[str, Any]:
    """Measures of isomers beside those of all questions; empty where there are no isomers."""
    questions, vectors = result.evaluation.questions, result.representations
    if not has_pairs(questions):
        return {}
    consistency = how = None
    if vectors is not None:
        consistency = asdict(logical_consistency(vectors, result.center))
        how = {**vectors.header.sampling, "center": result.center}
    return {
        "tests": {test: asdict(outcome) for test, outcome in tests.items()},
        "disagreement": asdict(answer_disagreement(questions)),
        "consistency": consistency,
        "representations": how,
    }


def _difference_as_json(first: Result, second: Result) -> dict[str, Any]:
    """A difference of all questions, and test by test where there are tests."""
    sides = first.evaluation.questions, second.evaluation.questions
    tests = {test: asdict(found) for test, found in differences(*sides).items()}
    names = {"from": first.step.name, "to": second.step.name}
    return {**names, **asdict(compare(*sides)), **({"tests": tests} if tests else {})}


def _plain(tests: dict[str, dict[str, Interval]]) -> dict[str, dict[str, Any]]:
    return {test: {name: asdict(x) for name, x in found.items()} for test, found in tests.items()}


def _outcomes(results: Sequence[Result]) -> list[dict[str, Outcome]]:
    return [outcomes(r.evaluation.questions, r.representations, r.center) for r in results]


def _against_first(results: Sequence[Result]) -> list[Difference]:
    """Each of the others against the first."""
    first = results[0].evaluation.questions
    return [compare(first, result.evaluation.questions) for result in results[1:]]


def _over_runs(results: Sequence[Result]) -> Seeds:
    """The compared runs that repeat one setting: the mean of what training changed."""
    groups = over_seeds(*_settings(results[1:]), _against_first(results))
    return [(names, run_interval([d.interval.mean for d in found])) for names, found in groups]


def _tests_over(results: Sequence[Result], found: Sequence[dict[str, Outcome]]) -> TestSeeds:
    """Likewise, test by test."""
    groups = over_seeds(*_settings(results), found)
    return [(names, measures_over_seeds(runs)) for names, runs in groups]


def _settings(results: Sequence[Result]) -> tuple[list[str], list[dict[str, Any]]]:
    steps = [result.step for result in results]
    return [step.name for step in steps], [read_config(step.target.run) for step in steps]


def show_tables(results: Sequence[Result], console: Console | None = None) -> None:
    """Print accuracy, by domain where there are several, and differences."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH)
    header = results[0].evaluation.header
    how = described({**header.sampling, "seed": header.seed})
    console.print(f"\n{header.dataset}, {header.split} split · {how}\n", markup=False)
    console.print(_accuracy_table(results))
    groups = [group_by(result.evaluation.questions, lambda q: q.domain) for result in results]
    if len(groups[0]) > 1:
        table = _table("avg@k by domain, %", "domain", [result.step.name for result in results])
        for domain in groups[0]:
            table.add_row(str(domain), *(percent(average_interval(g[domain])) for g in groups))
        console.print(table)
    _show_tests(results, console)
    for result, difference in zip(results[1:], _against_first(results), strict=True):
        console.print(
            f"[bold]{result.step.name} - {results[0].step.name}: "
            f"{points(difference.interval)}[/bold] percentage points of avg@k "
            f"({p_value(difference.p_value)}, {difference.questions} questions)",
            highlight=False,
        )
    for runs, interval in _over_runs(results):
        console.print(
            f"[bold]Mean of {len(runs)} runs that differ in their seeds: "
            f"{points(interval)}[/bold] percentage points (t-interval over {', '.join(runs)})",
            highlight=False,
        )
    console.print("Brackets: 95 % intervals over questions; differences are paired.", style="dim")
    for result in results:
        for file in result.step.files:
            console.print(f"Records of {result.step.name}: {file}", style="dim", soft_wrap=True)


def _accuracy_table(results: Sequence[Result]) -> Table:
    summaries = [summarise(result.evaluation.questions) for result in results]
    k = summaries[0].k
    columns = (f"avg@{k}", f"pass@{k}", f"maj@{k}", "answer found", "ended itself", "tokens")
    table = _table("Accuracy, %", "model", columns)
    for result, summary in zip(results, summaries, strict=True):
        table.add_row(
            result.step.name,
            f"[bold]{percent(summary.average)}[/bold]",
            percent(summary.passed),
            percent(summary.majority),
            percent(summary.format),
            f"{100 * summary.finished:.1f}",
            f"{summary.length:.1f}",
        )
    return table


def _show_tests(results: Sequence[Result], console: Console) -> None:
    """Tables by test, models side by side; nothing where there are no tests."""
    found = _outcomes(results)
    tests = list(found[0])
    if not tests:
        return
    names = [result.step.name for result in results]
    for measure in MEASURES:
        rows = {test: [measure.cell(one.get(test)) for one in found] for test in tests}
        if any(cell != NONE for cells in rows.values() for cell in cells):
            console.print(_test_table(measure.title, names, rows))
    pairs = [(results[0], result) for result in results[1:]]
    pairs += [(results[1], result) for result in results[2:]]
    if pairs:
        changes = [differences(a.evaluation.questions, b.evaluation.questions) for a, b in pairs]
        rows = {
            test: [points(c[test].interval) if test in c else NONE for c in changes]
            for test in tests
        }
        columns = [f"{b.step.name} - {a.step.name}" for a, b in pairs]
        console.print(_test_table("Paired differences of avg@k, points", columns, rows))
    for runs, seeds in _tests_over(results, found):
        title = f"Means of {len(runs)} seeds, t-intervals: {', '.join(runs)}"
        rows = {test: [m.text(x.get(m.name)) for m in MEASURES] for test, x in seeds.items()}
        console.print(_test_table(title, [measure.title for measure in MEASURES], rows))
    console.print(
        "By test: the unit is the isomer set; the mean gives each test out of distribution one "
        "voice. Disagreement and distance: lower is better.",
        style="dim",
    )


def _test_table(title: str, columns: Sequence[str], rows: dict[str, list[str]]) -> Table:
    """A row a test; the mean over tests stands apart from them."""
    table = _table(title, "test", columns)
    for test, cells in rows.items():
        if test == MEAN:
            table.add_section()
        table.add_row(title_of(test), *cells, style="bold" if test == MEAN else None)
    return table


def _table(title: str, first: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
