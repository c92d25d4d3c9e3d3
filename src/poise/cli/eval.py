"""`poise eval`: accuracy of a model, and what training has changed."""

from __future__ import annotations

from .arguments import CommandParser
from .eval_arguments import EvalArguments


def make_parser() -> CommandParser:
    """The parser of the command line and of `--config FILE.yaml`."""
    return CommandParser(
        EvalArguments,
        prog="poise eval",
        description="Measure accuracy: avg@k, pass@k and maj@k with 95 % intervals, and the "
        "paired difference between a model and others. "
        "Before and after training in one call: poise eval --compare RUN",
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    (arguments,) = make_parser().parse_args_and_config(argv)
    # Imported late, so that --help needs neither torch nor transformers.
    from .eval_run import evaluate
    from .eval_tables import show_json, show_tables

    results = evaluate(arguments)
    show_json(results) if arguments.json else show_tables(results)
    return 0
