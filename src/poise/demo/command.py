"""`poise demo`: PGPO beside SDPO, and IGA beside plain LoRA, with one page about both.

What it does are jobs, each in a process of `pool`; torch is imported there alone.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from .pool import Job, Tell, run_jobs
from .screen import screen

# Act one: run -> flags upon the demo's setting. SDPO is as released.
_RUNS: dict[str, dict[str, str]] = {
    "pgpo": {},
    "sdpo": {"multiplier": "none", "teacher_model_kind": "ema", "warmup_steps": "1"},
}
_QUESTIONS = 100  # unseen ones: a difference of some 11 points is seen
_TRAINING = 0.75  # share of a training's time, the rest is its evaluation


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
    folder, seed = Path(arguments.output_dir), arguments.seed
    folder.mkdir(parents=True, exist_ok=True)
    log, page = folder / "log.txt", folder / "report.html"
    print(
        f"Two acts, into {folder} (what is usually printed goes into {log}):\n"
        "  1  PGPO beside SDPO: a language model of 135M parameters answers questions on facts\n"
        "  2  IGA beside plain LoRA: a toy model learns a rule where a shortcut is at hand",
        flush=True,
    )
    runs = {name: str(folder / name) for name in _RUNS}
    isomers = {one: str(folder / f"isomers-{one}.json") for one in arguments.isomer_seeds}
    # In this order the toy model is there, of two processes, long before it is needed.
    jobs = [
        Job("toy model", make_toy, {}, cost=70.0),
        *(
            Job(name.upper(), train, {"run": run, "seed": seed, "flags": _RUNS[name]}, cost=140.0)
            for name, run in runs.items()
        ),
        *(
            Job(f"isomers, seed {one}", learn_isomers, {"output": path, "seed": one}, cost=40.0)
            for one, path in isomers.items()
        ),
        Job("before training", ask_before, {"runs": list(runs.values()), "seed": seed}, cost=35.0),
    ]
    with screen() as show:
        run_jobs(jobs, log, show)
    from .report import write_demo_report  # matplotlib and more, only now

    for line in write_demo_report(page, *map(Path, runs.values()), [*map(Path, isomers.values())]):
        print(line)
    print(f"The page: {page}")
    return 0


def train(tell: Tell, *, run: str, seed: int, flags: dict[str, str]) -> None:
    """Train the embedded model by PGPO, with flags upon the demo's setting, and ask it."""
    if not (Path(run) / "adapter_model.safetensors").is_file():
        _train(tell, run, seed, flags)
    _ask(tell, "after", [run], run, seed, begin=_TRAINING)


def ask_before(tell: Tell, *, runs: list[str], seed: int) -> None:
    """Ask the embedded model before training; the answers belong to all of the runs."""
    _ask(tell, "before", runs, "default", seed, begin=0.0)


def make_toy(tell: Tell) -> None:
    """Train the model of act two from scratch, unless it is there."""
    from .act_two import make_model

    make_model(tell)


def learn_isomers(tell: Tell, *, output: str, seed: int) -> None:
    """Train the toy model by plain LoRA and by IGA; accuracies by method and test go to a file."""
    if Path(output).is_file():
        return
    from .act_two import compare

    part = Path(f"{output}.part")
    part.write_text(json.dumps({"seed": seed, "accuracy": compare(tell, seed)}))
    part.replace(output)


def _train(tell: Tell, run: str, seed: int, flags: dict[str, str]) -> None:
    from transformers import TrainerCallback

    from ..cli import pgpo
    from ..cli.training import run_training
    from ..trl.checkpoints import latest

    setting = str(files(__package__).joinpath("pgpo.yaml"))
    words = flags | {"config": setting, "output_dir": run, "seed": f"{seed}"}
    words["question_seed"] = f"{seed}"
    script, config, model = pgpo.make_parser().parse_args_and_config(
        [part for name, value in words.items() for part in (f"--{name}", value)]
    )
    config.resume_from_checkpoint = latest(Path(run)) is not None

    class Progress(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
            if (reward := logs.get("self_distillation/reward_mean")) is not None:
                done, last = state.global_step, state.max_steps
                text = f"step {done} of {last}, {100 * reward:.0f} % right"
                tell(_TRAINING * done / last, text)

    def make_trainer(*arguments: Any) -> Any:
        trainer = pgpo.make_trainer(*arguments)
        trainer.add_callback(Progress())
        return trainer

    tell(0.0, "loading the model")
    run_training(make_trainer, script, config, model)


def _ask(tell: Tell, name: str, runs: list[str], model: str, seed: int, begin: float) -> None:
    from ..cli.eval import EvalArguments, Step, ask_all
    from ..evaluate.load import find_target

    # Answers are a few words: greedy, one sample, and the line's end ends them.
    arguments = EvalArguments(
        dataset_name="facts",
        question_seed=seed,
        count=_QUESTIONS,
        k=1,
        temperature=0.0,
        max_new_tokens=8,
        stop=["\n"],
        batch_size=50,
    )
    records = tuple(Path(run) / f"evaluation/{name}.jsonl" for run in runs)
    step = Step(name, find_target(model), records)

    def tell_asked(done: int, of: int) -> None:
        tell(begin + (1 - begin) * done / of, f"{done} of {of} unseen questions")

    tell(begin, "loading the model to ask it")
    ask_all([step], arguments, tell_asked)
