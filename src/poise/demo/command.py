"""`poise demo`: PGPO beside SDPO, and IGA beside plain LoRA, with one page about both.

The work is done by jobs, each in a process of `pool`; torch is imported there alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .pool import Job, run_jobs, screen

# Act one: run -> flags upon the demo's setting. PGPO's few steps are long; SDPO is as released.
RUNS: dict[str, dict[str, str]] = {
    "pgpo": {"target_distance": "0.1"},
    "sdpo": {"multiplier": "none", "teacher_model_kind": "ema", "warmup_steps": "1"},
}
_ONE, _TWO = "poise.demo.act_one", "poise.demo.act_two"


def main(argv: list[str]) -> int:
    """Run the command."""
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
    arguments = parser.parse_args(argv)
    folder, seed = Path(arguments.output_dir), arguments.seed
    folder.mkdir(parents=True, exist_ok=True)
    log, page = folder / "log.txt", folder / "report.html"
    print(
        f"Two acts, into {folder} (what is usually printed goes into {log}):\n"
        "  1  PGPO beside SDPO: a language model of 135M parameters answers questions on facts\n"
        "  2  IGA beside plain LoRA: a toy model learns a rule where a shortcut is at hand",
        flush=True,
    )
    runs = {name: folder / name for name in RUNS}
    isomers = {one: folder / f"isomers-{one}.json" for one in arguments.isomer_seeds}
    # In this order the toy model is there, of two processes, long before it is needed.
    jobs = [Job("toy model", f"{_TWO}:make_model", {}, cost=70.0)]
    for name, run in runs.items():
        training = {"run": run, "seed": seed, "flags": RUNS[name]}
        jobs.append(Job(name.upper(), f"{_ONE}:train", training, cost=140.0))
    for one, path in isomers.items():
        learning = {"output": path, "seed": one}
        jobs.append(Job(f"isomers, seed {one}", f"{_TWO}:learn_isomers", learning, cost=40.0))
    asked = {"runs": list(runs.values()), "seed": seed}
    jobs.append(Job("before training", f"{_ONE}:ask_before", asked, cost=35.0))
    with screen(jobs) as show:
        run_jobs(jobs, log, show)
    from .report import write_demo_report  # matplotlib and more, only now

    for line in write_demo_report(page, runs["pgpo"], runs["sdpo"], list(isomers.values())):
        print(line)
    print(f"The page: {page}")
    return 0
