"""When the student becomes a teacher that stands still otherwise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..trl.guards import RunningBand
from .ranges import check_state

REFRESHES = ("never", "once", "gated")


@dataclass
class RefreshOnce:
    r"""Refreshes once, after step :math:`\max(1, \mathrm{round}(a K))` of a run's :math:`K`.

    Args:
        at: the share :math:`a` of the run, in (0, 1).
        refreshes: refreshes so far.

    Source: restart-and-freeze at 40 % of a run (arXiv 2607.01763).

    Choice: student and optimizer go on as they are. A run that is resumed with fewer steps, and is
    past that one, refreshes at its next.
    """

    at: float
    refreshes: int = 0

    def update(self, figures: Mapping[str, float], step: int, steps: int) -> str | None:
        """Takes an optimizer step, of `steps`; says why, if the teacher is to be refreshed."""
        if self.refreshes or step < max(1, round(self.at * steps)):
            return None
        self.refreshes += 1
        return f"{self.at:g} of {steps} steps are done"

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"refreshes": self.refreshes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`'s output; ValueError where it is not whole."""
        check_state(state, self.state_dict())
        self.refreshes = state["refreshes"]


def _bands() -> dict[str, RunningBand]:
    names = ("student entropy", "entropy gap", "completion length")
    return {name: RunningBand() for name in names}


@dataclass
class RefreshGate:
    r"""Refreshes when the reward has risen by more than its noise, while the policy is calm.

    With :math:`m_0, s_0` mean and standard deviation of the first :math:`w` rewards since the last
    refresh, and :math:`m, s` of the last :math:`w`, which come after those, the reward has risen if

    .. math:: m - m_0 > z \sqrt{(s_0^2 + s^2) / w}.

    The policy is calm if student entropy, entropy gap (student minus teacher) and completion length
    are in their bands (`RunningBand`). So two refreshes are 2 w steps apart or more.

    Args:
        window: :math:`w`, at least 2.
        errors: :math:`z`, standard errors of the difference.
        refreshes: refreshes so far.
        first, last: the rewards of the two windows.
        bands: of the figures other than the reward.

    A step without a reward, whose rollouts are of an earlier step, counts for the bands alone. One
    with a figure that is not finite refreshes nothing.

    Choice: the rule's statistics; arXiv 2606.03532 refreshes "only when reward rose and the tail of
    lengths is safe" and names no thresholds. The first window comes after a refresh: before it
    rewards were chosen for being high. Three standard errors, because the question is put at every
    step: of simulated runs of 120 steps whose reward stays at 0.5 (8 to 192 rollouts), 7 to 10 %
    refresh, with two 25 to 32 %; where it rises from 0.3 to 0.95 there are 2 to 5 refreshes, with
    two 3 to 6.
    """

    window: int = 10
    errors: float = 3.0
    refreshes: int = 0
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    bands: dict[str, RunningBand] = field(default_factory=_bands)

    def update(self, figures: Mapping[str, float], step: int = 0, steps: int = 0) -> str | None:
        """Takes a step's figures ("reward" and the bands'); says why the teacher is to be
        refreshed, or None."""
        is_calm = self._watch(figures)
        reward = figures.get("reward", math.nan)
        if not math.isfinite(reward):
            return None
        if len(self.first) < self.window:
            self.first.append(reward)
            return None
        self.last = [*self.last, reward][-self.window :]
        if len(self.last) < self.window:
            return None
        before, now = statistics.fmean(self.first), statistics.fmean(self.last)
        error = math.sqrt(
            (statistics.variance(self.first) + statistics.variance(self.last)) / self.window
        )
        if not is_calm or now - before <= self.errors * error:
            return None
        self.refreshes += 1
        self.first, self.last = [], []
        return f"the reward rose from {before:.4g} to {now:.4g}, standard error {error:.2g}"

    def _watch(self, figures: Mapping[str, float]) -> bool:
        """Whether all figures are in their bands, which take them."""
        alarms = {
            name: band.update(figures[name]) for name, band in self.bands.items() if name in figures
        }
        is_finite = all(math.isfinite(figures[name]) for name in alarms)
        return is_finite and not any(
            alarms.get(name) or band.outside for name, band in self.bands.items()
        )

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {n: v for n, v in asdict(self).items() if n not in ("window", "errors")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`'s output; ValueError where it is not whole."""
        check_state(state, self.state_dict())
        self.refreshes = state["refreshes"]
        self.first, self.last = list(state["first"]), list(state["last"])
        self.bands = {name: RunningBand(**band) for name, band in state["bands"].items()}
