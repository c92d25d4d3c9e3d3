"""Study 1: does self-distillation survive, over learning rates of two decades?

A tiny model learns by SDPO, with the whole of `PGPOTrainer`. Its work is that of a `lab`:
"sorting", the default, half known and taught by successful siblings (`labs.sorting`), or "cipher",
where rewards are rare and each comes with a text that marks the attempt (`labs.cipher`). Settings
of a run: `steps`, `prompts` and `rollouts` a step, `test_questions`, `test_every` steps, and any
argument of `PGPOConfig`. Controls are
`control: mean_step` (SDPO, the learning rate multiplied by the mean multiplier that the run's own
settings gave on the same seed) and `control: shuffled` (those multipliers, in another order), and
both again as `scheduled_mean_step` and `scheduled_shuffled`, which weigh by each step's learning
rate (`_controls`); all take the multipliers of steps that distilled something. `trainer: grpo` is
another method on the same work: TRL's `GRPOTrainer` on the same questions, rewards, rollouts and
steps; it takes the arguments of `GRPOConfig`, and `NOT_GRPO`, which say nothing to it, are left
out. It never sees a text; `reward: share` gives it the share of right places instead of 1 for a
whole answer, in the lab that has one.

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
from ._settings import PGPO, require_arguments, require_counts, require_test_at_the_end

if TYPE_CHECKING:
    from ..tasks.accuracy import AccuracyCurve

LABS: dict[str, Any] = {"sorting": sorting, "cipher": cipher}
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
    lab, reward = config.get("lab", "sorting"), config.get("reward", "whole")
    trainer, control = config.get("trainer", "pgpo"), config.get("control")
    if lab not in LABS:
        raise ValueError(f"lab: expected one of {', '.join(LABS)}, found {lab!r}")
    if reward not in REWARDS:
        raise ValueError(f"reward: expected one of {', '.join(REWARDS)}, found {reward!r}")
    if reward == "share" and (trainer != "grpo" or not hasattr(LABS[lab], "share_reward")):
        raise ValueError(
            f"reward: expected whole with lab {lab} and trainer {trainer}, found {reward!r}"
        )
    if trainer not in TRAINERS:
        raise ValueError(f"trainer: expected one of {', '.join(TRAINERS)}, found {trainer!r}")
    if control is not None and control not in CONTROLS:
        raise ValueError(f"control: expected one of {', '.join(CONTROLS)}, found {control!r}")
    if control is not None and trainer != "pgpo":
        raise ValueError(f"control: expected none with trainer {trainer}, found {control!r}")
    require_counts(config, COUNTS)
    require_test_at_the_end(config)
    require_arguments(config, _arguments if trainer == "pgpo" else _grpo_arguments)


def run(config: dict[str, Any]) -> dict[str, Any]:
    """One run and its figures."""
    if config.get("trainer") == "grpo":
        return _train_grpo(config)
    control = config.get("control")
    if control is None:
        return _train(config)
    return _controlled(config, control)


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
    return _train(config | {"learning_rate": rate, "multiplier": "none"})


def _train(
    config: dict[str, Any], multipliers: Sequence[float] = (), again: int = 0
) -> dict[str, Any]:
    from poise import PGPOTrainer

    curve = _curve(config)
    with tempfile.TemporaryDirectory() as folder:
        reward = _lab(config).reward
        trainer = _trainer(PGPOTrainer, config, _arguments(config, folder), curve, reward)
        if multipliers:
            trainer.create_optimizer()
            trainer.step_scale.viscosity = _Replayed(multipliers, again)
            trainer.step_scale.distance = None
        _run_to_the_end(trainer, curve, config)
    return curve.figures() | pgpo_figures(trainer.state.log_history)


def _train_grpo(config: dict[str, Any]) -> dict[str, Any]:
    from trl import GRPOTrainer

    curve = _curve(config)
    with tempfile.TemporaryDirectory() as folder:
        reward = _numbers(config)
        trainer = _trainer(GRPOTrainer, config, _grpo_arguments(config, folder), curve, reward)
        _run_to_the_end(trainer, curve, config)
    steps = [line for line in trainer.state.log_history if "reward" in line]
    return curve.figures() | {"rewards": figures_of(steps, "reward")}


def _run_to_the_end(trainer: Any, curve: AccuracyCurve, config: dict[str, Any]) -> None:
    """Trains; a run that diverges is a result, not a failure."""
    from poise.trl.guards import NonFiniteTrainingError

    try:
        trainer.train()
    except RuntimeError as error:
        if not isinstance(error, NonFiniteTrainingError) and _NO_NUMBERS not in str(error):
            raise
        curve.diverge(config["steps"] // config["test_every"])


def _lab(config: dict[str, Any]) -> Any:
    return LABS[config.get("lab", "sorting")]


def _numbers(config: dict[str, Any]) -> Any:
    """The lab's reward as GRPO takes it: without a text."""
    from poise.pgpo.reward_functions import TextReward

    lab = _lab(config)
    if config.get("reward") == "share":
        return lab.share_reward
    return TextReward(lab.reward, deliver=lambda texts: None)


def _curve(config: dict[str, Any]) -> AccuracyCurve:
    from ..tasks.accuracy import AccuracyCurve

    lab = _lab(config)
    tests = lab.problems(config["test_questions"], config["seed"], "test")
    return AccuracyCurve(tests, config["test_every"], lab.LENGTH + 1)


def _trainer(
    trainer_class: Any, config: dict[str, Any], args: Any, curve: AccuracyCurve, reward: Any
) -> Any:
    """A trainer on the seed's model and questions."""
    from datasets import Dataset

    from poise.demo.learning import hide_bars, quieten

    hide_bars()
    lab = _lab(config)
    count = config["prompts"] * config["steps"]
    trainer = trainer_class(
        model=lab.model_folder(config["seed"]),
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_list(lab.problems(count, config["seed"], "train")),
        callbacks=[curve],
    )
    quieten(trainer)
    return trainer


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
        **(PGPO | _lab(config).TEMPLATES | own),
    )


def _grpo_arguments(config: dict[str, Any], folder: str) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        **_common(config, folder),
        **{name: value for name, value in config.items() if name not in (*OWN, *NOT_GRPO)},
    )


def _common(config: dict[str, Any], folder: str) -> dict[str, Any]:
    """Arguments that both trainers take."""
    return {
        "output_dir": folder,
        "seed": config["seed"],
        "max_steps": config["steps"],
        "per_device_train_batch_size": config["prompts"] * config["rollouts"],
        "num_generations": config["rollouts"],
        "max_completion_length": _lab(config).LENGTH + 1,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
