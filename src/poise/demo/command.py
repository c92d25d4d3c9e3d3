"""`poise demo`: PGPO beside SDPO, and IGA beside plain LoRA, with one page about both."""

from __future__ import annotations

import argparse
from pathlib import Path

from .jobs import ask_before, learn_isomers, make_toy, train
from .pool import Job, run_jobs
from .screen import Screen

PGPO, SDPO = "pgpo", "sdpo"
# SDPO as released: a moving teacher, and a warm-up.
_SDPO = {"multiplier": "none", "teacher_model_kind": "ema", "warmup_steps": "1"}
_FLAGS: dict[str, dict[str, str]] = {PGPO: {}, SDPO: _SDPO}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="poise demo",
        description="Trains the embedded model of 135M parameters by PGPO and by SDPO, and a toy "
        "model by IGA and by plain LoRA, and writes a page about both. Interrupted, it goes on "
        "where it was when it is run again.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--output_dir", default="runs/demo", help="folder of runs and report")
    parser.add_argument("--seed", type=int, default=1, help="seed of act one")
    parser.add_argument(
        "--isomer_seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds of act two"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = make_parser().parse_args(argv)
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    print(
        f"Two acts, into {folder} (what is usually printed goes into {log}):\n"
        "  1  PGPO beside SDPO: a language model of 135M parameters answers questions on facts\n"
        "  2  IGA beside plain LoRA: a toy model learns a rule where a shortcut is at hand",
        flush=True,
    )
    runs = {name: folder / name for name in _FLAGS}
    isomers = {seed: folder / f"isomers-{seed}.json" for seed in arguments.isomer_seeds}
    with Screen() as screen:
        run_jobs(_jobs(runs, isomers, arguments.seed), log, screen.show)
    from .report import write_demo_report  # matplotlib and more, only now

    page = folder / "report.html"
    for line in write_demo_report(page, runs[PGPO], runs[SDPO], list(isomers.values())):
        print(line)
    print(f"The page: {page}")
    return 0


def _jobs(runs: dict[str, Path], isomers: dict[int, Path], seed: int) -> list[Job]:
    """In this order the toy model is there, of two processes, long before it is needed."""
    trainings = [
        Job(name.upper(), train, {"run": str(runs[name]), "seed": seed, "flags": flags}, cost=140.0)
        for name, flags in _FLAGS.items()
    ]
    toys = [
        Job(f"isomers, seed {one}", learn_isomers, {"output": str(path), "seed": one}, cost=40.0)
        for one, path in isomers.items()
    ]
    asked = {"runs": [str(run) for run in runs.values()], "seed": seed}
    return [
        Job("toy model", make_toy, {}, cost=70.0),
        *trainings,
        *toys,
        Job("before training", ask_before, asked, cost=35.0),
    ]
