"""`poise demo`: trains the embedded model by PGPO, measures it before and after, and reports."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..training.checkpoints import latest
from . import launch, pgpo
from .eval_arguments import EvalArguments
from .eval_run import evaluate
from .eval_tables import show_tables
from .report import make_report

CONFIG = "demo.yaml"


def main(argv: list[str]) -> int:
    """Runs the demo; flags are those of `poise pgpo`. An interrupted demo goes on where it was."""
    config_file = files(__package__).joinpath(CONFIG)
    parsed, unknown, _ = launch.parse(pgpo.make_parser(), ["--config", str(config_file), *argv])
    if unknown:
        raise ValueError(f"unknown arguments: {' '.join(unknown)}; see poise pgpo --help")
    script, config, model = parsed
    config.resume_from_checkpoint = latest(Path(config.output_dir)) is not None
    pgpo.train(script, config, model)
    # Answers are a few words: greedy, one sample, and the line's end ends them.
    results = evaluate(
        EvalArguments(
            compare=[config.output_dir],
            questions=400,
            k=1,
            temperature=0.0,
            max_new_tokens=8,
            stop=["\n"],
            dtype="bfloat16",
        )
    )
    show_tables(results)
    make_report([config.output_dir])
    return 0
