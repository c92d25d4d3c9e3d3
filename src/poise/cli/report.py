"""`poise report`: one HTML page about one or several training runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .arguments import CommandParser, option


@dataclass
class ReportArguments:
    """Where the page goes."""

    output: str | None = option(
        None, "The HTML file. By default report.html, in the run folder if there is only one."
    )


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    parser = CommandParser(
        ReportArguments,
        prog="poise report",
        description="Write one self-contained HTML page about training runs: what was run, "
        "accuracy before and after, curves, sample completions, several runs side by side.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Folder of a training run.")
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments, places = make_parser().parse_args_and_config(argv)
    # From a configuration file one run may come as plain text.
    runs = [places.runs] if isinstance(places.runs, str) else places.runs
    print(f"Report written to {make_report(runs, arguments.output)}")
    return 0


def make_report(runs: list[str], output: str | None = None) -> Path:
    """Read runs and write the page; returns its path.

    Raises:
        FileNotFoundError: a run folder does not exist.
        ValueError: a folder is no run, or a file in it is damaged.
    """
    from ..evaluate.report import write_report
    from ..evaluate.runs import read_runs

    found = read_runs(runs)
    default = found[0].path / "report.html" if len(found) == 1 else Path("report.html")
    return write_report(found, output or default)
