"""What `poise eval` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from ..evaluate.metrics import group_by
from ..evaluate.runs import read_config
from ..evaluate.statistics import Difference
from ..evaluate.summary import (
    OverRuns,
    average_interval,
    compare,
    described,
    over_runs,
    p_value,
    percent,
    points,
    summarise,
)
from .eval_isomers import difference_as_json, isomers_as_json, over_seeds_of, show_isomers
from .eval_run import Result

_WIDTH = 120  # of tables in a file or a pipe, where there is no terminal to fit


def show_json(results: Sequence[Result]) -> None:
    """Print one object: settings, each model's measures, each difference to the first."""
    print(json.dumps(as_json(results), ensure_ascii=False))


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """What `--json` prints."""
    header = results[0].evaluation.header
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
                **isomers_as_json(result),
            }
            for result in results
        ],
        "differences": [
            difference_as_json(results[0], result, difference)
            for result, difference in _differences(results)
        ],
        "between": [
            difference_as_json(results[1], result, difference)
            for result, difference in _differences(results[1:])
        ],
        "over_runs": [asdict(group) for group in _over_runs(results)],
        "over_seeds": [asdict(group) for group in over_seeds_of(results)],
    }


def _over_runs(results: Sequence[Result]) -> list[OverRuns]:
    found = _differences(results)
    runs = [result.step.target.run for result, _ in found]
    return over_runs(
        [result.step.name for result, _ in found],
        [read_config(run) if run is not None else {} for run in runs],
        [difference for _, difference in found],
    )


def _differences(results: Sequence[Result]) -> list[tuple[Result, Difference]]:
    """Each of the others against the first."""
    if not results:
        return []
    first = results[0].evaluation.questions
    return [(result, compare(first, result.evaluation.questions)) for result in results[1:]]


def show_tables(results: Sequence[Result], console: Console | None = None) -> None:
    """Print accuracy, by domain where there are several, and differences."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=_WIDTH)
    header = results[0].evaluation.header
    how = described({**header.sampling, "seed": header.seed})
    console.print(f"\n{header.dataset}, {header.split} split · {how}\n", markup=False)
    console.print(_main_table(results))
    domains = group_by(results[0].evaluation.questions, lambda q: q.domain)
    if len(domains) > 1:
        console.print(_domain_table(results, [str(name) for name in domains]))
    show_isomers(results, console)
    for result, difference in _differences(results):
        console.print(
            f"[bold]{result.step.name} - {results[0].step.name}: "
            f"{points(difference.interval)}[/bold] percentage points of avg@k "
            f"({p_value(difference.p_value)}, {difference.questions} questions)",
            highlight=False,
        )
    for group in _over_runs(results):
        console.print(
            f"[bold]Mean of {len(group.runs)} runs that differ in their seeds: "
            f"{points(group.interval)}[/bold] percentage points "
            f"(t-interval over {', '.join(group.runs)})",
            highlight=False,
        )
    console.print("Brackets: 95 % intervals over questions; differences are paired.", style="dim")
    for result in results:
        for file in result.step.files:
            console.print(f"Records of {result.step.name}: {file}", style="dim", soft_wrap=True)


def _main_table(results: Sequence[Result]) -> Table:
    k = summarise(results[0].evaluation.questions).k
    table = Table(title="Accuracy, %", title_justify="left")
    table.add_column("model")
    for name in (f"avg@{k}", f"pass@{k}", f"maj@{k}", "answer found", "ended itself", "tokens"):
        table.add_column(name, justify="right")
    for result in results:
        summary = summarise(result.evaluation.questions)
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


def _domain_table(results: Sequence[Result], domains: Sequence[str]) -> Table:
    table = Table(title="avg@k by domain, %", title_justify="left")
    table.add_column("domain")
    groups = [group_by(result.evaluation.questions, lambda q: q.domain) for result in results]
    for result in results:
        table.add_column(result.step.name, justify="right")
    for domain in domains:
        table.add_row(domain, *(percent(average_interval(group[domain])) for group in groups))
    return table
