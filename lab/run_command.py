"""`python -m lab run`: progress, time left, and what failed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from poise.cli.arguments import CommandParser, option

from .commands import warn_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .runner import Outcome


@dataclass
class RunArguments:
    """How much, and how fast."""

    limit: int | None = option(None, "End after so many runs.")
    jobs: int = option(1, "Runs at once, a process each.")


def main(argv: list[str]) -> int:
    """Do what is missing; returns 1 if a run failed.

    Raises:
        ValueError: the experiment is wrong, or its study refuses a run's settings or lacks data.
    """
    parser = CommandParser(
        RunArguments,
        prog="python -m lab run",
        description="Do the runs of an experiment that have no line in results.jsonl, the first "
        "seed of everything first. Killed, it goes on when called again; several may run at once.",
    )
    parser.add_argument("name", metavar="NAME", help="An experiment.")
    arguments, places = parser.parse_args_and_config(argv)
    for flag, value in (("jobs", arguments.jobs), ("limit", arguments.limit)):
        if value is not None and value < 1:
            raise ValueError(f"--{flag}: expected at least 1, found {value}")
    from . import runner, specification
    from .results import Results

    experiment = specification.load(specification.find(places.name))
    warn_of(Results(experiment.folder).read()[1], experiment.name)
    runs, missing = experiment.runs(), runner.missing(experiment)
    print(f"{experiment.name}: {len(runs) - len(missing)} of {len(runs)} runs are done")
    if missing:
        runner.check_runs(experiment)
        runner.check_data(missing)
    outcomes = runner.run_all(experiment, missing, arguments.limit, arguments.jobs)
    total = min(len(missing), arguments.limit or len(missing))
    failed = _follow(outcomes, total)
    left = len(runner.missing(experiment))
    print(f"{experiment.name}: {len(runs) - left} of {len(runs)} runs are done, {failed} failed")
    return 1 if failed else 0


def _follow(outcomes: Iterable[Outcome], total: int) -> int:
    """Show each outcome as it comes; returns how many failed."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console()
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
