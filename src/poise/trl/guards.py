"""Guards that keep a run alive: skipped steps, and a warning before a collapse is complete."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)


class NonFiniteTrainingError(RuntimeError):
    """Too many consecutive steps had a loss or gradient that was not finite."""


@dataclass
class NonFiniteGuard:
    """Counts skipped steps and stops a run that does nothing else any more."""

    limit: int  # skipped steps in a row, after which the next one raises
    total: int = 0  # skipped steps of the run
    consecutive: int = 0  # since the last good one

    def good(self) -> None:
        """A step was finite."""
        self.consecutive = 0

    def skipped(self, step: int, last_checkpoint: str | None) -> None:
        """A step was skipped; raises NonFiniteTrainingError at one more than `limit` in a row."""
        self.total += 1
        self.consecutive += 1
        if self.consecutive > self.limit:
            last = last_checkpoint or "none: no checkpoint was written yet"
            raise NonFiniteTrainingError(
                f"loss or gradient was not finite in {self.consecutive} steps in a row, the last "
                f"at step {step}; no such step changed the weights. The last checkpoint is {last}. "
                "Lower the learning rate or rho_max, or check the rewards and the data"
            )


class WarmupCheck(TrainerCallback):  # type: ignore[misc]
    """Warns where a brake's first steps, which become its reference, go at the full learning rate.

    Choice: ours. In `experiments/collapse_warmup` a run without a warm-up kept 62 % accuracy over
    four learning rates where one with a warm-up of 20 steps kept 81 %.
    """

    def on_train_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        outlives = state.global_step == 0 and state.max_steps > args.signal_reference_steps
        is_too_short = args.warmup_steps > 0 and args.get_warmup_steps(state.max_steps) == 0
        if not args.brakes_from_first_steps or not outlives or is_too_short:
            return
        # A schedule sets the first rate when it is made, and keeps the one that it was given.
        groups = optimizer.param_groups
        if all(group["lr"] >= group.get("initial_lr", group["lr"]) for group in groups):
            logger.warning(
                "The learning rate has no warm-up, and PGPO hardly brakes before it has steps to "
                "measure others against. Leave warmup_steps out (a tenth of the steps), or set it "
                "to 20; the schedule 'constant' ignores it."
            )


@dataclass
class RunningBand:
    r"""Says when a figure leaves the band that it has kept so far.

    The band is mean +- `width` standard deviations, both exponentially weighted with `decay`, the
    deviation at least `floor` of the mean's size. A figure must stay outside for `patience` steps
    in a row. Outside figures do not widen the band until the alarm was given. With `falls_only`,
    the band is open above.

    Choice: all of it; the papers report collapses and do not say how to notice one.
    """

    decay: float = 0.05
    width: float = 4.0
    floor: float = 0.1
    warmup: int = 20
    patience: int = 3
    falls_only: bool = False
    mean: float = 0.0
    variance: float = 0.0
    steps: int = 0
    outside: int = 0

    def update(self, value: float) -> bool:
        """Takes the next figure; True when it completes the patience."""
        if not math.isfinite(value):
            return False
        change = value - self.mean
        distance = -change if self.falls_only else abs(change)
        deviation = max(math.sqrt(self.variance), self.floor * abs(self.mean), 1e-6)
        if self.steps >= self.warmup and distance > self.width * deviation:
            self.outside += 1
            if self.outside < self.patience:
                return False
        alarm = self.outside == self.patience
        self.outside = 0
        self.steps += 1
        weight = max(self.decay, 1 / self.steps)  # a plain mean until the window is full
        self.mean += weight * change
        self.variance = (1 - weight) * (self.variance + weight * change * change)
        return alarm


class CollapseMonitor:
    """One running band for each watched figure. A reward that rises is no collapse."""

    def __init__(self) -> None:
        self.bands = {
            "student entropy": RunningBand(),
            "reward": RunningBand(falls_only=True),
            "completion length": RunningBand(),
        }

    def update(self, values: dict[str, float]) -> list[str]:
        """Takes the step's figures, by name; returns a sentence for each that left its band."""
        sentences = []
        for name, band in self.bands.items():
            usual = band.mean
            if name in values and band.update(values[name]):
                sentences.append(
                    f"{name} has left its running band: {values[name]:.4g} for {band.patience} "
                    f"steps, {usual:.4g} before. This is how a collapse begins"
                )
        return sentences

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: asdict(band) for name, band in self.bands.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`'s output."""
        self.bands = {name: RunningBand(**band) for name, band in state.items()}
