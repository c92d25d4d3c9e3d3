"""`poise report`: one HTML page about one or several training runs."""

from __future__ import annotations

from pathlib import Path

from .arguments import CommandParser


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    parser = CommandParser(
        prog="poise report",
        description="Write one self-contained HTML page about training runs: what was run, "
        "accuracy before and after, curves, sample completions, several runs side by side.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="Folder of a training run.")
    parser.add_argument(
        "--output",
        help="The HTML file. By default report.html, in the run folder if there is only one.",
    )
    return parser


def main(argv: list[str]) -> int:
    """Read runs and write the page."""
    (arguments,) = make_parser().parse_args_and_config(argv)
    from ..evaluate.report import write_report
    from ..evaluate.runs import read_runs

    # From a configuration file one run may come as plain text.
    runs = [arguments.runs] if isinstance(arguments.runs, str) else arguments.runs
    found = read_runs(runs)
    default = found[0].path / "report.html" if len(found) == 1 else Path("report.html")
    print(f"Report written to {write_report(found, arguments.output or default)}")
    return 0
