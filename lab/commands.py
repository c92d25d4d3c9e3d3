"""`python -m lab`: experiments, run, shown and listed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poise.cli.arguments import CommandParser
from poise.cli.main import dispatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .runner import Outcome

# Subcommand -> what it does, and the module and function that run it.
SUBCOMMANDS = {
    "run": ("do the runs of an experiment that are missing", "lab.commands:run"),
    "table": ("print and write its table and figure", "lab.commands:table"),
    "list": ("list the experiments", "lab.commands:list_experiments"),
}
WIDTH = 140  # of tables in a file or a pipe, where there is no terminal to fit


def main(argv: list[str]) -> int:
    """Run the subcommand that the first word names."""
    about = (
        "Experiments: a folder NAME under experiments/ (or a path) holds experiment.yaml, which "
        "says what\nvaries, and results.jsonl (finished: results.jsonl.xz), one line a run."
    )
    return dispatch(argv, SUBCOMMANDS, "python -m lab", about)


def run(argv: list[str]) -> int:
    """Do what is missing; returns 1 if a run failed.

    Raises:
        ValueError: the experiment is wrong, or its study refuses a run's settings or lacks data.
    """
    parser = CommandParser(
        prog="python -m lab run",
        description="Do the runs of an experiment that have no result line, the first seed of "
        "everything first. Killed, it goes on when called again; several may run at once.",
    )
    parser.add_argument("name", metavar="NAME", help="An experiment.")
    parser.add_argument("--limit", type=int, help="End after this number of runs.")
    parser.add_argument("--jobs", type=int, default=1, help="Runs at once, a process each.")
    (arguments,) = parser.parse_args_and_config(argv)
    for flag, value in (("jobs", arguments.jobs), ("limit", arguments.limit)):
        if value is not None and value < 1:
            raise ValueError(f"--{flag}: expected at least 1, found {value}")
    from . import runner, specification
    from .results import Results

    experiment = specification.load(specification.find(arguments.name))
    _warn_of(Results(experiment.folder).read()[1], experiment.name)
    runs, missing = experiment.runs(), runner.missing(experiment)
    print(f"{experiment.name}: {len(runs) - len(missing)} of {len(runs)} runs are done")
    if missing:
        runner.check(experiment, missing)
    outcomes = runner.run_all(experiment, missing, arguments.limit, arguments.jobs)
    failed = _follow(outcomes, min(len(missing), arguments.limit or len(missing)))
    left = len(runner.missing(experiment))
    print(f"{experiment.name}: {len(runs) - left} of {len(runs)} runs are done, {failed} failed")
    return 1 if failed else 0


def _follow(outcomes: Iterable[Outcome], total: int) -> int:
    """Show each outcome as it comes; returns how many failed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = _console()
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    counts: Counter[str] = Counter()
    began = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("runs", total=total, left="")
        for outcome in outcomes:
            counts[outcome.status] += 1
            text = f"{counts.total()}/{total} {outcome.run}: {outcome.status}"
            # Runs that are done elsewhere take no time.
            if here := counts.total() - counts["elsewhere"]:
                seconds = (time.monotonic() - began) / here * max(0, total - counts.total())
                left = f"{timedelta(seconds=round(seconds))} left"
                progress.update(task, completed=counts.total(), left=left)
                text += f" in {outcome.seconds:.1f} s, {left}" if outcome.status == "done" else ""
            print(text, flush=True)
            if outcome.status == "failed":
                print(outcome.error, file=sys.stderr)
    return counts["failed"]


def table(argv: list[str]) -> int:
    """Print the table of an experiment; write it, and the figure, beside the results.

    Raises:
        ValueError: the experiment is wrong, or has no results yet.
    """
    parser = CommandParser(
        prog="python -m lab table",
        description="Means with 95 % intervals over seeds, and paired differences to the "
        "baseline, corrected for their number. Writes table.md and figure.png, and compresses the "
        "result lines of an experiment whose runs are all done.",
    )
    parser.add_argument("name", metavar="NAME", help="An experiment.")
    parser.add_argument("--output", help="The folder; by default that of the experiment.")
    (arguments,) = parser.parse_args_and_config(argv)
    from rich.markdown import Markdown

    from . import figure, markdown, specification, tables
    from .results import Results

    experiment = specification.load(specification.find(arguments.name))
    results = Results(experiment.folder)
    records, damaged = results.read()
    _warn_of(damaged, experiment.name)
    done = [run.key in records for run in experiment.runs()]
    if not any(done):
        others = f"; {len(records)} lines are of other settings" if records else ""
        raise ValueError(
            f"{experiment.name}: expected results of these settings, found none{others}; see "
            "`python -m lab run --help`"
        )
    if all(done):
        results.compress()
    sections = tables.build(experiment, records)
    text = markdown.page(experiment, records, sections)
    _console().print(Markdown(text))
    folder = Path(arguments.output or experiment.folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "table.md", *figure.save(experiment, sections, folder)]
    written[0].write_text(text, encoding="utf-8")
    print(f"Written: {', '.join(map(str, written))}")
    return 0


def list_experiments(argv: list[str]) -> int:
    """List the experiments with what is done; returns 2 if one of them cannot be read."""
    CommandParser(
        prog="python -m lab list",
        description="List the experiments under experiments/, and how much of each is done.",
    ).parse_args_and_config(argv)
    from rich.table import Table
    from rich.text import Text

    from . import runner, specification

    listing = Table("experiment", "study", "runs", "done", "missing")
    faults = []
    for folder in specification.folders():
        try:
            experiment = specification.load(folder)
        except specification.ExperimentError as error:
            faults.append(str(error))
            continue
        runs, missing = len(experiment.runs()), len(runner.missing(experiment))
        counts = map(str, (runs, runs - missing, missing))
        listing.add_row(*map(Text, (experiment.name, experiment.study, *counts)))
    console = _console()
    console.print(listing if listing.rows else f"No experiments under {specification.FOLDER}/")
    for fault in faults:
        console.print(Text(fault, style="red"))
    return 2 if faults else 0


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _warn_of(damaged: list[int], name: str) -> None:
    """Say which result lines are passed over."""
    if damaged:
        lines = ", ".join(map(str, damaged))
        print(f"{name}: results.jsonl: passed over, as they are cut off: lines {lines}")
