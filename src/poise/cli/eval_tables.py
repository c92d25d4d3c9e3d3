"""What `poise eval` prints: accuracy, domain by domain, and of isomers test by test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ..evaluate.isomers import (
    MEAN,
    MEASURES,
    NONE,
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


def figures_of(results: Sequence[Result]) -> dict[str, Any]:
    """Settings, each model's measures, each difference to the first: what `--json` prints."""
    header = results[0].evaluation.header
    asked = [(result.step.name, result.evaluation.questions) for result in results]
    runs = [(result.step.name, read_config(result.step.target.run)) for result in results]
    tests = [outcomes(r.evaluation.questions, r.representations) for r in results]
    evaluations = []
    for result, of_tests in zip(results, tests, strict=True):
        questions, vectors = result.evaluation.questions, result.representations
        found = {
            "name": result.step.name,
            "model": result.step.target.model,
            "adapter": result.step.target.adapter,
            "records": [str(file) for file in result.step.files],
            **vars(summarise(questions)),
        }
        are_paired = has_pairs(questions)
        if of_tests or are_paired:
            found["tests"] = of_tests
        if are_paired:
            found |= {
                "disagreement": answer_disagreement(questions),
                "consistency": vectors and logical_consistency(vectors),
                "representations": vectors and {**vectors.header.sampling, "center": "mean"},
            }
        evaluations.append(found)
    pairs = [(asked[0], one) for one in asked[1:]] + [(asked[1], one) for one in asked[2:]]
    changes = [compare(first, second) for (_, first), (_, second) in pairs]
    compared = []
    for ((before, first), (after, second)), change in zip(pairs, changes, strict=True):
        difference = {"from": before, "to": after, **vars(change)}
        if by_test := differences(first, second):
            difference["tests"] = by_test
        compared.append(difference)
    others = len(results) - 1
    over_runs = changes_over_seeds(runs[1:], changes[:others])
    return {
        "dataset": header.dataset,
        "split": header.split,
        "selection": header.selection,
        "sampling": header.sampling,
        "seed": header.seed,
        "evaluations": evaluations,
        "differences": compared[:others],
        "between": compared[others:],
        "over_runs": [{"runs": names, "interval": x} for names, x in over_runs],
        "over_seeds": [
            {"runs": names, "tests": x} for names, x in outcomes_over_seeds(runs, tests)
        ],
    }


def show_tables(results: Sequence[Result]) -> None:
    """Print accuracy, by domain and by test where there are several, and differences."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    figures = figures_of(results)
    evaluations, names = figures["evaluations"], [result.step.name for result in results]
    how = described({**figures["sampling"], "seed": figures["seed"]})
    console.print(f"\n{figures['dataset']}, {figures['split']} split · {how}\n", markup=False)
    k = evaluations[0]["k"]
    columns = (f"avg@{k}", f"pass@{k}", f"maj@{k}", "answer found", "ended itself", "tokens")
    cells = [
        (
            f"[bold]{percent(found['average'])}[/bold]",
            *(percent(found[name]) for name in ("passed", "majority", "format")),
            f"{100 * found['finished']:.1f}",
            f"{found['length']:.1f}",
        )
        for found in evaluations
    ]
    console.print(_table("Accuracy, %", "model", columns, zip(names, cells, strict=True)))
    groups = [group_by(result.evaluation.questions, lambda q: q.domain) for result in results]
    if len(groups[0]) > 1:
        domains = (
            (str(domain), [percent(average_interval(group[domain])) for group in groups])
            for domain in groups[0]
        )
        console.print(_table("avg@k by domain, %", "domain", names, domains))
    if evaluations[0].get("tests"):
        _show_tests(figures, names, console)
    for change in figures["differences"]:
        console.print(
            f"[bold]{change['to']} - {change['from']}: {points(change['interval'])}[/bold] "
            f"percentage points of avg@k ({p_value(change['p_value'])}, {change['questions']} "
            "questions)",
            highlight=False,
        )
    for group in figures["over_runs"]:
        runs = group["runs"]
        console.print(
            f"[bold]Mean of {len(runs)} runs that differ in their seeds: "
            f"{points(group['interval'])}[/bold] percentage points (t-interval over "
            f"{', '.join(runs)})",
            highlight=False,
        )
    console.print("Brackets: 95 % intervals over questions; differences are paired.", style="dim")
    for found in evaluations:
        for file in found["records"]:
            console.print(f"Records of {found['name']}: {file}", style="dim", soft_wrap=True)


def _show_tests(figures: dict[str, Any], names: Sequence[str], console: Console) -> None:
    """Tables by test, models side by side."""
    found = [evaluation["tests"] for evaluation in figures["evaluations"]]
    for measure in MEASURES:
        rows = {test: [measure.cell(one.get(test)) for one in found] for test in found[0]}
        if any(cell != NONE for cells in rows.values() for cell in cells):
            console.print(_table(measure.title, "test", names, rows.items()))
    if changes := figures["differences"] + figures["between"]:
        by_test = [change.get("tests", {}) for change in changes]
        rows = {
            test: [points(c[test].interval) if test in c else NONE for c in by_test]
            for test in found[0]
        }
        columns = [f"{change['to']} - {change['from']}" for change in changes]
        console.print(_table("Paired differences of avg@k, points", "test", columns, rows.items()))
    for group in figures["over_seeds"]:
        title = f"Means of {len(group['runs'])} seeds, t-intervals: {', '.join(group['runs'])}"
        rows = {
            x: [m.text(found.get(m.name)) for m in MEASURES] for x, found in group["tests"].items()
        }
        console.print(_table(title, "test", [m.title for m in MEASURES], rows.items()))
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
