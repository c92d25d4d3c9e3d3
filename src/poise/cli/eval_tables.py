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
    changes_over_seeds,
    differences,
    has_pairs,
    logical_consistency,
    outcomes,
    outcomes_over_seeds,
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
from ..evaluate.runs import read_config
from .eval_asking import Result

_WIDTH = 120  # of tables in a file or a pipe, where there is no terminal to fit


def show_json(results: Sequence[Result]) -> None:
    """Print one object: settings, each model's measures, each difference to the first."""
    header = results[0].evaluation.header
    tests, runs = _outcomes(results), _settings(results)
    changes = [compare(*_sides(results[0], result)) for result in results[1:]]
    found = {
        "dataset": header.dataset,
        "split": header.split,
        "selection": header.selection,
        "sampling": header.sampling,
        "seed": header.seed,
        "evaluations": list(map(_evaluation_as_json, results, tests)),
        "differences": [_difference_as_json(results[0], result) for result in results[1:]],
        "between": [_difference_as_json(results[1], result) for result in results[2:]],
        "over_runs": [
            {"runs": names, "interval": x} for names, x in changes_over_seeds(runs[1:], changes)
        ],
        "over_seeds": [
            {"runs": names, "tests": x} for names, x in outcomes_over_seeds(runs, tests)
        ],
    }
    print(json.dumps(found, ensure_ascii=False, default=asdict))


def _evaluation_as_json(result: Result, tests: dict[str, Outcome]) -> dict[str, Any]:
    """A model's measures; of isomers, if there are any, further ones."""
    questions, vectors = result.evaluation.questions, result.representations
    found = {
        "name": result.step.name,
        "model": result.step.target.model,
        "adapter": result.step.target.adapter,
        "records": [str(file) for file in result.step.files],
        **asdict(summarise(questions)),
    }
    if has_pairs(questions):
        found |= {
            "tests": tests,
            "disagreement": answer_disagreement(questions),
            "consistency": vectors and logical_consistency(vectors, result.center),
            "representations": vectors and {**vectors.header.sampling, "center": result.center},
        }
    return found


def _difference_as_json(first: Result, second: Result) -> dict[str, Any]:
    """A difference of all questions, and test by test where there are tests."""
    sides = _sides(first, second)
    tests = differences(*sides)
    names = {"from": first.step.name, "to": second.step.name}
    return {**names, **asdict(compare(*sides)), **({"tests": tests} if tests else {})}


def _sides(first: Result, second: Result) -> tuple[Any, Any]:
    return first.evaluation.questions, second.evaluation.questions


def _outcomes(results: Sequence[Result]) -> list[dict[str, Outcome]]:
    return [outcomes(r.evaluation.questions, r.representations, r.center) for r in results]


def _settings(results: Sequence[Result]) -> list[tuple[str, dict[str, Any]]]:
    return [(result.step.name, read_config(result.step.target.run)) for result in results]


def show_tables(results: Sequence[Result], console: Console | None = None) -> None:
    """Print accuracy, by domain where there are several, and differences."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH)
    header, names = results[0].evaluation.header, [result.step.name for result in results]
    how = described({**header.sampling, "seed": header.seed})
    console.print(f"\n{header.dataset}, {header.split} split · {how}\n", markup=False)
    console.print(_accuracy_table(results))
    groups = [group_by(result.evaluation.questions, lambda q: q.domain) for result in results]
    if len(groups[0]) > 1:
        rows = {
            str(domain): [percent(average_interval(group[domain])) for group in groups]
            for domain in groups[0]
        }
        console.print(_table("avg@k by domain, %", "domain", names, rows.items()))
    _show_tests(results, console)
    changes = [compare(*_sides(results[0], result)) for result in results[1:]]
    for name, change in zip(names[1:], changes, strict=True):
        console.print(
            f"[bold]{name} - {names[0]}: {points(change.interval)}[/bold] percentage points of "
            f"avg@k ({p_value(change.p_value)}, {change.questions} questions)",
            highlight=False,
        )
    for runs, interval in changes_over_seeds(_settings(results[1:]), changes):
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
    rows = [
        (
            f"[bold]{percent(summary.average)}[/bold]",
            percent(summary.passed),
            percent(summary.majority),
            percent(summary.format),
            f"{100 * summary.finished:.1f}",
            f"{summary.length:.1f}",
        )
        for summary in summaries
    ]
    names = [result.step.name for result in results]
    return _table("Accuracy, %", "model", columns, zip(names, rows, strict=True))


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
            console.print(_table(measure.title, "test", names, rows.items()))
    pairs = [(results[0], result) for result in results[1:]]
    pairs += [(results[1], result) for result in results[2:]]
    if pairs:
        changes = [differences(*_sides(*pair)) for pair in pairs]
        rows = {
            test: [points(c[test].interval) if test in c else NONE for c in changes]
            for test in tests
        }
        columns = [f"{b.step.name} - {a.step.name}" for a, b in pairs]
        console.print(_table("Paired differences of avg@k, points", "test", columns, rows.items()))
    for runs, seeds in outcomes_over_seeds(_settings(results), found):
        title = f"Means of {len(runs)} seeds, t-intervals: {', '.join(runs)}"
        rows = {test: [m.text(x.get(m.name)) for m in MEASURES] for test, x in seeds.items()}
        titles = [measure.title for measure in MEASURES]
        console.print(_table(title, "test", titles, rows.items()))
    console.print(
        "By test: the unit is the isomer set; the mean gives each test out of distribution one "
        "voice. Disagreement and distance: lower is better.",
        style="dim",
    )


def _table(
    title: str, first: str, columns: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]
) -> Table:
    """A row for each name; the mean over tests stands apart from them."""
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    for name, cells in rows:
        if is_mean := first == "test" and name == MEAN:
            table.add_section()
        shown = title_of(name) if first == "test" else name
        table.add_row(shown, *cells, style="bold" if is_mean else None)
    return table
