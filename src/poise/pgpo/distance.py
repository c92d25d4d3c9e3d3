"""The step as a distance in policy space: how far it may move the policy, and how far it did."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..loss.divergence import log_ratio, relative_entropy

REACH = 2.0  # the most by which the scale changes from one step to the next


class DistanceSum(NamedTuple):
    """Sum of the tokens' divergences and their number: adds up over micro-batches and ranks."""

    total: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class DistanceState:
    """What the controller remembers.

    Attributes:
        scale: of the last step, multiplier times the learning rate's share of its base.
        moved: how far that step went, in nats a token; None if it was not measured.
        asked: how far it was to go; None before the first step.
    """

    scale: float
    moved: float | None = None
    asked: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class DistanceControl:
    r"""Step multiplier that holds the policy's own change at a target.

    With :math:`D_k = KL(\pi_{old} \| \pi_{new})`, the mean over tokens of step k's own completions,
    and :math:`d_k` the distance that was asked for,

    .. math:: \rho_{k+1} = \mathrm{clip}\big(\rho_k\,
        \mathrm{clip}(\sqrt{d_{k+1} / D_k},\ 1/2,\ 2),\ \rho_{min},\ \rho_{max}\big)

    since for small steps D grows with the square of the step. So the learning rate says only where
    the search begins: what a step does to the policy is `target`.

    Args:
        target: d, in nats a token, positive.
        first: :math:`\rho_0`. Small, so that the first step cannot do harm; each step at most
            doubles it.
        rho_min: lower bound of the multiplier, positive.
        rho_max: its upper bound.
        signal_share: with it a step asks for at most this share of its information signal, which
            with the estimator `kl` is what student and teacher still differ by.
        afterwards: correct each step after it was taken, by its own distance, instead of the next
            one alone. Costs a copy of the trained weights and one to three measurements.

    Raises:
        ValueError: an argument outside its range.

    Choice: ours, as is the method. A scheduler scales the distance, not the step: where the rate is
    the share s of its base, the step asks for s d. The memory is of the step's whole scale, rho s,
    so that a schedule's jump is not taken for a change of the policy's.
    """

    target: float = 0.006
    first: float = 0.02
    rho_min: float = 1e-4
    rho_max: float = 1000.0
    signal_share: float | None = None
    afterwards: bool = False

    def __post_init__(self) -> None:
        for name in ("target", "first", "rho_min", "rho_max"):
            value: object = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive finite number, got {value!r}")
        if self.signal_share is not None and not 0 < self.signal_share < math.inf:
            raise ValueError(
                f"signal_share must be a positive number or None, got {self.signal_share!r}"
            )
        if not self.rho_min <= self.first <= self.rho_max:
            raise ValueError(
                "first must lie between rho_min and rho_max, got "
                f"first={self.first!r}, rho_min={self.rho_min!r}, rho_max={self.rho_max!r}"
            )

    def init(self) -> DistanceState:
        """The state before the first step."""
        return DistanceState(scale=self.first)

    def asked(self, signal: float | None, factor: float, share: float) -> float:
        """The distance that a step asks for, in nats a token.

        Args:
            signal: the step's information signal in nats; None if nothing was distilled.
            factor: what `Viscosity` makes of it, g(I).
            share: the learning rate as a share of its base.
        """
        distance = self.target * factor
        if self.signal_share is not None and signal is not None:
            distance = min(distance, self.signal_share * max(signal, 0.0))
        return distance * share

    def step(self, asked: float, share: float, state: DistanceState) -> tuple[float, DistanceState]:
        """A step's multiplier, and the state with which it is taken."""
        if share <= 0:  # a step of nothing, as a warm-up's first
            return 1.0, state
        scale = state.scale
        # A step that was not measured went as far as it was to go.
        before = state.asked if state.moved is None else state.moved
        if before is not None:
            scale *= change(asked, before)
        rho = self.clip(scale / share)
        return rho, DistanceState(rho * share, asked=asked)

    def clip(self, rho: float) -> float:
        """A multiplier within the bounds."""
        return min(max(rho, self.rho_min), self.rho_max)

    @staticmethod
    def moved(distance: float | None, state: DistanceState) -> DistanceState:
        """The state after the step, told how far it went."""
        return replace(state, moved=distance)


def change(asked: float, moved: float, reach: float = REACH) -> float:
    """The factor from a step that went `moved` to one that goes `asked`, in [1 / reach, reach]."""
    if not math.isfinite(moved):
        return 1 / reach
    if asked <= 0:
        return 1 / reach
    if moved <= 0:  # less than rounding shows
        return reach
    return min(max(math.sqrt(asked / moved), 1 / reach), reach)


def policy_distance(old: Tensor, new: Tensor, mask: Tensor | None = None) -> DistanceSum:
    r"""Sum over tokens of :math:`KL(\pi_{old} \| \pi_{new})`, and their number.

    ============  =========================================  ======================================
    given         formula                                    note
    ============  =========================================  ======================================
    (N, V)        :math:`\sum_v p_v \log(p_v / q_v)`         exact, over the whole vocabulary
    (N,)          :math:`e^{r} - 1 - r`, r = log q_y/p_y     of the sampled tokens y; never negative
    ============  =========================================  ======================================

    The second is unbiased where the tokens were sampled from the old policy: the mean of
    :math:`e^r` is then 1, and that of -r the divergence.

    Args:
        old: log-probabilities before the step; of all tokens of the vocabulary, or of the sampled.
        new: the same after it.
        mask: (N,); tokens where it is zero do not count.

    Returns:
        Scalars in float32, or float64 where the log-probabilities are.

    Raises:
        ValueError: the shapes differ, or are neither.
    """
    if old.shape != new.shape or old.ndim not in (1, 2):
        raise ValueError(
            "old and new must be log-probabilities of one shape, (N,) or (N, V), got "
            f"{tuple(old.shape)} and {tuple(new.shape)}"
        )
    if mask is not None and mask.shape != old.shape[:1]:
        raise ValueError(
            f"mask must have one value a token, ({len(old)},), got {tuple(mask.shape)}"
        )
    dtype = torch.promote_types(old.dtype, torch.float32)
    old, new = old.detach().to(dtype), new.detach().to(dtype)
    if old.ndim == 2:
        values = relative_entropy(old, new)
    else:
        ratio = log_ratio(new, old)
        values = ratio.expm1() - ratio
    kept = torch.ones_like(values, dtype=torch.bool) if mask is None else mask != 0
    return DistanceSum(torch.where(kept, values, 0.0).sum(), kept.sum().to(dtype))
