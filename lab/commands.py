"""`python -m lab`: experiments, run, shown and listed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from poise.cli.arguments import CommandParser, option
from poise.cli.main import dispatch

# Subcommand -> what it does, and the module and function that run it.
SUBCOMMANDS = {
    "run": ("do the runs of an experiment that are missing", "lab.run_command:main"),
    "table": ("print and write its table and figure", "lab.commands:table"),
    "list": ("list the experiments", "lab.commands:list_experiments"),
}
WIDTH = 140  # of tables in a file or a pipe, where there is no terminal to fit


@dataclass
class TableArguments:
    """Where table and figure go."""

    output: str | None = option(None, "The folder; by default that of the experiment.")


@dataclass
class ListArguments:
    """Nothing to choose."""


def main(argv: list[str]) -> int:
    """Run the subcommand that the first word names."""
    about = (
        "Experiments: a folder NAME under experiments/ (or a path) holds experiment.yaml, which "
        "says what\nvaries, and results.jsonl, one line a run."
    )
    return dispatch(argv, SUBCOMMANDS, "python -m lab", about)


def table(argv: list[str]) -> int:
    """Print the table of an experiment; write it, and the figure, beside the results.

    Raises:
        ValueError: the experiment is wrong, or has no results yet.
    """
    parser = CommandParser(
        TableArguments,
        prog="python -m lab table",
        description="Means with 95 % intervals over seeds, and paired differences to the "
        "baseline, corrected for their number. Writes table.md, figure.png and figure.svg.",
    )
    parser.add_argument("name", metavar="NAME", help="An experiment.")
    arguments, places = parser.parse_args_and_config(argv)
    from rich.console import Console

    from . import figure, page, specification, tables
    from .results import Results

    experiment = specification.load(specification.find(places.name))
    records, damaged = Results(experiment.folder).read()
    warn_of(damaged, experiment.name)
    if not any(run.key in records for run in experiment.runs()):
        others = f"; {len(records)} lines are of other settings" if records else ""
        raise ValueError(
            f"{experiment.name}: expected results of these settings, found none{others}; see "
            "`python -m lab run --help`"
        )
    sections = tables.build(experiment, records)
    console = Console()
    page.show(
        experiment, records, sections, console if console.is_terminal else Console(width=WIDTH)
    )
    folder = Path(arguments.output or experiment.folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "table.md", *figure.save(experiment, sections, folder)]
    written[0].write_text(page.markdown(experiment, records, sections), encoding="utf-8")
    print(f"Written: {', '.join(map(str, written))}")
    return 0


def list_experiments(argv: list[str]) -> int:
    """List the experiments with what is done; returns 2 if one of them cannot be read."""
    parser = CommandParser(
        ListArguments,
        prog="python -m lab list",
        description="List the experiments under experiments/, and how much of each is done.",
    )
    parser.parse_args_and_config(argv)
    from rich.console import Console
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
    console = Console()
    console = console if console.is_terminal else Console(width=WIDTH)
    console.print(listing if listing.rows else f"No experiments under {specification.FOLDER}/")
    for fault in faults:
        console.print(Text(fault, style="red"))
    return 2 if faults else 0


def warn_of(damaged: list[int], name: str) -> None:
    """Say which result lines are passed over."""
    if damaged:
        lines = ", ".join(map(str, damaged))
        print(f"{name}: results.jsonl: passed over, as they are cut off: lines {lines}")
