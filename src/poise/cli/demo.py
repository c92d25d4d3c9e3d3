"""`poise demo`: trains the embedded model by PGPO, then by IGA beside plain LoRA, and measures."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from ..training.checkpoints import latest
from . import iga, launch, pgpo
from .eval_arguments import EvalArguments
from .eval_run import evaluate
from .eval_tables import show_tables
from .report import make_report

PGPO_SETTING = "demo.yaml"
IGA_SETTING = "demo_iga.yaml"


def main(argv: list[str]) -> int:
    """Runs the demo; flags are those of `poise pgpo`, of which IGA's part takes the seeds and the
    folder. An interrupted demo goes on where it was."""
    script, config, model = _parse(pgpo.make_parser(), PGPO_SETTING, argv)
    folder = Path(config.output_dir)
    print(f"PGPO: answers of one line to questions on facts, into {folder}", flush=True)
    pgpo.train(script, config, model)
    # Answers are a few words: greedy, one sample, and the line's end ends them.
    _measure([folder], folder, questions=400, max_new_tokens=8, stop=["\n"])
    seeds = ["--seed", str(config.seed), "--question_seed", str(script.question_seed)]
    plain, second = (folder.with_name(f"{folder.name}-{name}") for name in ("plain", "iga"))
    for what, run, flags in (
        ("Plain LoRA: reasoning on logical isomers", plain, ["--use_engine", "false"]),
        ("IGA: the same batches", second, []),
    ):
        print(f"\n{what}, into {run}", flush=True)
        arguments = ["--output_dir", str(run), *seeds, *flags]
        iga.train(*_parse(iga.make_parser(), IGA_SETTING, arguments))
    _measure([plain, second], second, questions=8, max_new_tokens=64, stop=["\n\n"])
    print(
        "Each problem has three options: a third is right by chance, and before training no answer "
        "has the form that is asked for. So few steps teach the form, not yet the logic."
    )
    return 0


def _parse(parser: Any, setting: str, argv: list[str]) -> list[Any]:
    """The arguments of a training command: our setting, and flags that change it."""
    parser.prog = "poise demo"
    config_file = files(__package__).joinpath(setting)
    parsed, unknown, _ = launch.parse(parser, ["--config", str(config_file), *argv])
    if unknown:
        raise ValueError(f"unknown arguments: {' '.join(unknown)}; see {parser.prog} --help")
    config = parsed[1]
    config.resume_from_checkpoint = latest(Path(config.output_dir)) is not None
    return parsed


def _measure(runs: list[Path], home: Path, **settings: Any) -> None:
    """Accuracy before and after, on the screen and in a report in the folder `home`."""
    names = [str(run) for run in runs]
    results = evaluate(
        EvalArguments(compare=names, k=1, temperature=0.0, dtype="bfloat16", **settings)
    )
    show_tables(results)
    print(f"Report written to {make_report(names, str(home / 'report.html'))}")
