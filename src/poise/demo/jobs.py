"""What the demo does, each in a process of `demo_pool`; torch is imported there alone."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from .pool import Tell

QUESTIONS = 100  # unseen ones: a difference of some 11 points is told from none
_SETTING = "pgpo.yaml"
_TRAINING = 0.75  # share of a training's time, the rest is its evaluation
_ADAPTER = "adapter_model.safetensors"


def train(tell: Tell, *, run: str, seed: int, flags: dict[str, str]) -> None:
    """Train the embedded model by PGPO, with flags upon the demo's setting, and ask it."""
    if not (Path(run) / _ADAPTER).is_file():
        _train(tell, run, seed, flags)
    _ask(tell, "after", (run,), run, seed, begin=_TRAINING)


def ask_before(tell: Tell, *, runs: list[str], seed: int) -> None:
    """Ask the embedded model before training; the answers belong to all of the runs."""
    _ask(tell, "before", tuple(runs), "default", seed, begin=0.0)


def _train(tell: Tell, run: str, seed: int, flags: dict[str, str]) -> None:
    from transformers import TrainerCallback

    from ..cli import launch, pgpo
    from ..cli.training import run_training
    from ..trl.checkpoints import latest

    words = flags | {"output_dir": run, "seed": str(seed), "question_seed": str(seed)}
    argv = [part for name, value in words.items() for part in (f"--{name}", value)]
    setting = str(files(__package__).joinpath(_SETTING))
    parsed, _, _ = launch.parse(pgpo.make_parser(), ["--config", setting, *argv])
    script, config, model = parsed
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


def _ask(tell: Tell, name: str, runs: tuple[str, ...], model: str, seed: int, begin: float) -> None:
    from ..cli.eval import EvalArguments, Step, ask_all
    from ..evaluate.load import find_target

    # Answers are a few words: greedy, one sample, and the line's end ends them.
    arguments = EvalArguments(
        dataset_name="facts",
        question_seed=seed,
        count=QUESTIONS,
        k=1,
        temperature=0.0,
        max_new_tokens=8,
        stop=["\n"],
        batch_size=50,
    )
    records = tuple(Path(run) / f"evaluation/{name}.jsonl" for run in runs)
    step = Step(name, find_target(model), records)

    def told(done: int, of: int) -> None:
        tell(begin + (1 - begin) * done / of, f"{done} of {of} unseen questions")

    tell(begin, "loading the model to ask it")
    ask_all([step], arguments, told)


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
