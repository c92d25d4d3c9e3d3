"""PGPO beside SDPO on the embedded model: each is trained and asked, as is the model before."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..cli import pgpo
from ..cli.eval import EvalArguments
from ..cli.eval_asking import Step, ask_all
from ..cli.training import run_training
from ..evaluate.load import find_target
from ..trl.manifest import latest
from .pool import Tell

# Unseen questions, of which a difference of some 11 points is seen. Answers are a few words:
# greedy, one sample, and the line's end ends them.
_QUESTIONS: dict[str, Any] = {
    **{"dataset_name": "facts", "count": 100, "k": 1, "temperature": 0.0},
    **{"max_new_tokens": 8, "stop": ["\n"], "batch_size": 50},
}
_TRAINING = 0.75  # share of a training's time, the rest is its evaluation


def train(tell: Tell, *, run: Path, seed: int, flags: dict[str, str]) -> None:
    """Train the embedded model by PGPO, with flags upon the demo's setting, and ask it."""
    if not (run / "adapter_model.safetensors").is_file():
        script, config, model = parse(run, seed, flags)
        config.resume_from_checkpoint = latest(run) is not None
        tell(0.0, "loading the model")

        def make_trainer(*arguments: Any) -> Any:
            trainer = pgpo.make_trainer(*arguments)
            trainer.add_callback(_Progress(tell))
            return trainer

        run_training(make_trainer, script, config, model)
    _ask(tell, "after", [run], str(run), seed, begin=_TRAINING)


def ask_before(tell: Tell, *, runs: list[Path], seed: int) -> None:
    """Ask the embedded model before training; the answers belong to all of the runs."""
    _ask(tell, "before", runs, "default", seed, begin=0.0)


class _Progress(TrainerCallback):  # type: ignore[misc]
    """How far a training is."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **kwargs: Any) -> None:
        if (reward := logs.get("self_distillation/reward_mean")) is not None:
            done, last = state.global_step, state.max_steps
            text = f"step {done} of {last}, {100 * reward:.0f} % right"
            self._tell(_TRAINING * done / last, text)


def parse(run: Path, seed: int, flags: dict[str, str]) -> tuple[Any, ...]:
    """Script, configuration and model of a training, with flags upon the demo's setting."""
    words = flags | {
        "config": str(files(__package__).joinpath("pgpo.yaml")),
        "output_dir": str(run),
        "seed": str(seed),
        "question_seed": str(seed),
    }
    return pgpo.make_parser().parse_args_and_config(
        [part for name, value in words.items() for part in (f"--{name}", value)]
    )


def _ask(tell: Tell, name: str, runs: Sequence[Path], model: str, seed: int, begin: float) -> None:
    records = tuple(run / f"evaluation/{name}.jsonl" for run in runs)

    def tell_asked(done: int, of: int) -> None:
        tell(begin + (1 - begin) * done / of, f"{done} of {of} unseen questions")

    tell(begin, "loading the model to ask it")
    arguments = EvalArguments(question_seed=seed, **_QUESTIONS)
    ask_all([Step(name, find_target(model), records)], arguments, tell_asked)
