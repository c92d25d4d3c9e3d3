"""Study 1: does self-distillation survive, over learning rates of two decades?

A tiny model learns by SDPO, with the whole of `PGPOTrainer`. Its toy task is the setting `lab`:
"sorting", the default, half known and taught by successful siblings (`lab.tasks.sorting`), or
"cipher", where rewards are rare and each comes with a text that marks the attempt
(`lab.tasks.cipher`). Settings of a run: `steps`, `prompts` and `rollouts` a step,
`test_questions`, `test_every` steps, and any argument of `PGPOConfig`.

`control` names a control. `mean_step` is SDPO, its learning rate multiplied by the mean multiplier
that the run's own settings gave on the same seed; `shuffled` has those multipliers in another
order. `scheduled_mean_step` and `scheduled_shuffled` weigh by each step's learning rate
(`_controls`). All take the multipliers of steps that distilled something.

`trainer: grpo` is another method on the same task: TRL's `GRPOTrainer` on the same questions,
rewards, rollouts and steps. It takes the arguments of `GRPOConfig`; `NOT_GRPO`, which say nothing
to it, are left out. It never sees a text; `reward: share` gives it the share of right places
instead of 1 for a whole answer, in the task that has one.

Figures: greedy accuracy on questions that training never shows, at every test; its last, best and
mean value (the area under the curve); and whether the run survived: the last value is at least
the one before training. A run that diverges answers nothing from there on. GRPO has no multipliers
and no signals.
"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from poise.pgpo.viscosity import ViscosityState

from ..tasks import cipher, sorting
from . import _controls
from ._logs import figures_of, pgpo_figures
from ._settings import (
    PGPO,
    require_arguments,
    require_choice,
    require_counts,
    require_test_at_the_end,
    rollout_arguments,
)

if TYPE_CHECKING:
    from ..tasks.accuracy import AccuracyCurve

TASKS: dict[str, Any] = {"sorting": sorting, "cipher": cipher}
TRAINERS = ("pgpo", "grpo")
REWARDS = ("whole", "share")
CONTROLS = ("mean_step", "shuffled", "scheduled_mean_step", "scheduled_shuffled")
COUNTS = ("seed", "steps", "prompts", "rollouts", "test_questions", "test_every")
OWN = ("method", "lab", "trainer", "reward", "control", *COUNTS)
_NO_NUMBERS = "probability tensor contains"  # what torch says of inf and nan when it samples
NOT_GRPO = ("distillation_mode", "distillation_alpha", "teacher_update_rate")


def check(config: dict[str, Any]) -> None:
    """Refuse what the study or the trainer does not take.

    Raises:
        ValueError: a setting of the study is missing or outside its range, or the trainer's
            configuration refuses one.
    """
    require_choice(config, "lab", TASKS, "sorting")
    require_choice(config, "reward", REWARDS, "whole")
    require_choice(config, "trainer", TRAINERS, "pgpo")
    require_choice(config, "control", (*CONTROLS, None), None)
    is_grpo, control = _is_grpo(config), config.get("control")
    if config.get("reward") == "share" and not (is_grpo and hasattr(_task(config), "share_reward")):
        name, trainer = config.get("lab", "sorting"), config.get("trainer", "pgpo")
        raise ValueError(
            f"reward: expected whole with lab {name} and trainer {trainer}, found 'share'"
        )
    if control is not None and is_grpo:
        raise ValueError(f"control: expected none with trainer grpo, found {control!r}")
    require_counts(config, COUNTS)
    require_test_at_the_end(config)
    require_arguments(config, _grpo_arguments if is_grpo else _arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    control = config.get("control")
    return _train(config) if control is None else _controlled(config, control)


def _controlled(config: dict[str, Any], control: str) -> dict[str, Any]:
    """A run of the settings themselves, then the control with its multipliers."""
    figures = _train(config)
    rates = _controls.rates(_arguments(config, "unused"))
    live = [i for i, signal in enumerate(figures["signals"]) if signal is not None]
    used = [figures["multipliers"][i] for i in live] or [1.0]
    rates = [rates[i] for i in live] or [1.0]
    rng = random.Random(f"shuffled {config['seed']}")
    if control == "shuffled":
        rng.shuffle(used)
        return _train(config, used)
    if control == "scheduled_shuffled":
        used = _controls.scheduled_shuffle(used, rates, rng)
        return _train(config, used, again=rates.index(rates[-1]))
    scheduled = control == "scheduled_mean_step"
    mean = _controls.scheduled_mean(used, rates) if scheduled else statistics.fmean(used)
    rate = config["learning_rate"] * mean
    return _train(config | {"learning_rate": rate, "multiplier": "none", "sensitivity": 0.0})


def _train(
    config: dict[str, Any], multipliers: Sequence[float] = (), again: int = 0
) -> dict[str, Any]:
    """Train on the seed's model and questions; a run that diverges is a result, not a failure."""
    from poise.trl.guards import NonFiniteTrainingError

    from ..tasks.accuracy import AccuracyCurve

    task = _task(config)
    tests = task.problems(config["test_questions"], config["seed"], "test")
    curve = AccuracyCurve(tests, config["test_every"], task.LENGTH + 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(config, folder, curve)
        if multipliers:
            trainer.create_optimizer()
            trainer.step_scale.viscosity = _Replayed(multipliers, again)
            trainer.step_scale.distance = None
        try:
            trainer.train()
        except RuntimeError as error:
            if not isinstance(error, NonFiniteTrainingError) and _NO_NUMBERS not in str(error):
                raise
            curve.diverge(config["steps"] // config["test_every"])
    history = trainer.state.log_history
    if not _is_grpo(config):
        return curve.figures() | pgpo_figures(history)
    steps = [line for line in history if "reward" in line]
    return curve.figures() | {"rewards": figures_of(steps, "reward")}


def _trainer(config: dict[str, Any], folder: str, curve: AccuracyCurve) -> Any:
    from datasets import Dataset
    from trl import GRPOTrainer

    from poise import PGPOTrainer
    from poise.demo.learning import hide_bars, quieten

    hide_bars()
    task, is_grpo = _task(config), _is_grpo(config)
    questions = task.problems(config["prompts"] * config["steps"], config["seed"], "train")
    trainer = (GRPOTrainer if is_grpo else PGPOTrainer)(
        model=task.model_folder(config["seed"]),
        reward_funcs=_numbers(config) if is_grpo else task.reward,
        args=(_grpo_arguments if is_grpo else _arguments)(config, folder),
        train_dataset=Dataset.from_list(questions),
        callbacks=[curve],
    )
    quieten(trainer)
    return trainer


def _task(config: dict[str, Any]) -> Any:
    return TASKS[config.get("lab", "sorting")]


def _is_grpo(config: dict[str, Any]) -> bool:
    return config.get("trainer") == "grpo"


def _numbers(config: dict[str, Any]) -> Any:
    """The task's reward as GRPO takes it: without a text."""
    from poise.pgpo.rollouts import TextReward

    task = _task(config)
    if config.get("reward") == "share":
        return task.share_reward
    return TextReward(task.reward, deliver=lambda texts: None)


class _Replayed:
    """Stands for the law of viscosity: a list of multipliers, whatever the signal.

    After its end it goes on from the one at `again`.
    """

    sensitivity = 1.0

    def __init__(self, multipliers: Sequence[float], again: int) -> None:
        self._multipliers, self._again = multipliers, again

    def step(self, signal: float, state: ViscosityState) -> tuple[float, ViscosityState]:
        place, end = state.steps, len(self._multipliers)
        if place >= end:
            place = self._again + (place - end) % (end - self._again)
        return self._multipliers[place], ViscosityState(None, state.steps + 1)


def _arguments(config: dict[str, Any], folder: str) -> Any:
    from poise import PGPOConfig

    own = {name: value for name, value in config.items() if name not in OWN}
    return PGPOConfig(
        diagnostics_warning_interval=0,
        collapse_warning=False,  # collapse is what is measured
        **_common(config, folder),
        **(PGPO | _task(config).TEMPLATES | own),
    )


def _grpo_arguments(config: dict[str, Any], folder: str) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        **_common(config, folder),
        **{name: value for name, value in config.items() if name not in (*OWN, *NOT_GRPO)},
    )


def _common(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments that both trainers take."""
    return rollout_arguments(config, folder) | {
        "max_completion_length": _task(config).LENGTH + 1,
        "bf16": False,
        "use_cpu": True,
    }
