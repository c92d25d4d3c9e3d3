"""Study 1: does self-distillation survive, over learning rates of two decades?

A tiny model that half knows how to sort (`labs.sorting`) learns by SDPO from its own successful
siblings, with the whole of `PGPOTrainer`. Settings of a run: `steps`, `prompts` and `rollouts` a
step, `test_questions`, `test_every` steps, and any argument of `PGPOConfig`. Two controls are
`control: larger_step` (SDPO, the learning rate multiplied by the mean multiplier that the run's
own settings gave on the same seed) and `control: shuffled` (those multipliers, in another order).

Figures: greedy accuracy on questions that training never shows, at every test; its last, best and
mean value (the area under the curve); and whether the run survived: the last value is at least
the one before training.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

from ...core.viscosity import ViscosityState
from ..labs import sorting
from ._settings import require_arguments, require_counts

CONTROLS = ("larger_step", "shuffled")
COUNTS = ("seed", "steps", "prompts", "rollouts", "test_questions", "test_every")
OWN = ("method", "control", *COUNTS)


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting of the study is missing or outside its range, or the trainer's
            configuration refuses one.
    """
    control = config.get("control")
    if control is not None and control not in CONTROLS:
        raise ValueError(f"control: expected one of {', '.join(CONTROLS)}, found {control!r}")
    require_counts(config, COUNTS)
    require_arguments(config, _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    control = config.get("control")
    if control is None:
        return _train(config)
    multipliers = _train(config)["multipliers"]
    if control == "shuffled":
        random.Random(f"shuffled {config['seed']}").shuffle(multipliers)
        return _train(config, multipliers)
    rate = config["learning_rate"] * statistics.fmean(multipliers)
    return _train(config | {"learning_rate": rate, "sensitivity": 0.0})


def _train(config: dict[str, Any], multipliers: Sequence[float] = ()) -> dict[str, Any]:
    from datasets import Dataset

    from ...training import PGPOTrainer
    from ..labs.accuracy import AccuracyCurve
    from ..labs.quiet import quieten

    tests = sorting.problems(config["test_questions"], config["seed"], "test")
    curve = AccuracyCurve(tests, config["test_every"], sorting.LENGTH + 1)
    count = config["prompts"] * config["steps"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = PGPOTrainer(
            model=sorting.model_folder(config["seed"]),
            reward_funcs=sorting.reward,
            args=_arguments(config, folder),
            train_dataset=Dataset.from_list(sorting.problems(count, config["seed"], "train")),
            callbacks=[curve],
        )
        quieten(trainer)
        if multipliers:
            trainer.create_optimizer()
            trainer.step_scale.viscosity = _Replayed(multipliers)
        trainer.train()
    steps = [line for line in trainer.state.log_history if "pgpo/multiplier" in line]
    used = [line["pgpo/multiplier"] for line in steps]
    return curve.figures() | {
        "mean_multiplier": statistics.fmean(used),
        "multipliers": used,
        "signals": _figures_of(steps, "pgpo/information_signal"),
        "rewards": _figures_of(steps, "self_distillation/reward_mean"),
    }


def _figures_of(steps: Sequence[dict[str, float]], name: str) -> list[float | None]:
    """A logged figure of every step, to five places; None where nothing was distilled."""
    return [round(line[name], 5) if name in line else None for line in steps]


class _Replayed:
    """Stands for the law of viscosity: a list of multipliers, whatever the signal."""

    sensitivity = 1.0

    def __init__(self, multipliers: Sequence[float]) -> None:
        self._multipliers = multipliers

    def step(self, signal: float, state: ViscosityState) -> tuple[float, ViscosityState]:
        rho = self._multipliers[state.steps % len(self._multipliers)]
        return rho, ViscosityState(None, state.steps + 1)


def _arguments(config: dict[str, Any], folder: str) -> Any:
    from ...training import PGPOConfig

    return PGPOConfig(
        output_dir=folder,
        seed=config["seed"],
        max_steps=config["steps"],
        per_device_train_batch_size=config["prompts"] * config["rollouts"],
        num_generations=config["rollouts"],
        max_completion_length=sorting.LENGTH + 1,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        diagnostics_warning_interval=0,
        collapse_warning=False,  # collapse is what is measured
        **sorting.TEMPLATES,
        **{name: value for name, value in config.items() if name not in OWN},
    )
