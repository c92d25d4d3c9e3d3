"""From the information signal to the step multiplier: PGPO's viscosity law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from .ranges import AT_LEAST_0, POSITIVE_OR_NONE, Expected, check_ranges, number, whole

SignalReference = Literal["none", "initial", "running"]
REFERENCES: tuple[str, ...] = get_args(SignalReference)

_RANGES: dict[str, Expected] = {
    "sensitivity": AT_LEAST_0,
    "rho_min": number("in (0, 1]", lambda v: 0 < v <= 1),
    "rho_max": number("at least 1", lambda v: v >= 1),
    "reference": (f"one of {REFERENCES}", lambda v: v in REFERENCES),
    "reference_steps": whole(1),
    "reference_decay": number("in [0, 1]", lambda v: 0 <= v <= 1),
    "prior_reference": POSITIVE_OR_NONE,
}
# A reference at or below zero has no ratio. Far below any signal that a model gives (1e-2 nats).
REFERENCE_FLOOR = 1e-6


@dataclass(frozen=True)
class ViscosityState:
    """What a reference remembers. `reference` in nats; None before the first signal."""

    reference: float | None = None
    steps: int = 0


@dataclass(frozen=True)
class Viscosity:
    r"""Step multiplier from the information signal.

    .. math:: \rho_k = \mathrm{clip}(\exp(\alpha\, u_k),\ \rho_{min},\ \rho_{max})

    with :math:`u_k = I_k` without a reference (eq. 9) and :math:`u_k = I_k / I_{ref} - 1` with one.

    Args:
        sensitivity: :math:`\alpha \ge 0`. 0 switches the method off: the multiplier is 1.
        rho_max: cap, at least 1.
        rho_min: lower bound, in (0, 1]. 1 is the paper's: no step is smaller than the baseline's.
            Below 1, an uninformative or misleading correction brakes.
        reference: `none` is the paper's form. `initial`: mean of the first `reference_steps`
            signals, then fixed; until then the mean so far. `running`: a maximum that forgets
            (so that it only brakes),
            :math:`I_{ref} \leftarrow \max(I_k, (1-\delta) I_{ref} + \delta I_k)`.
        reference_steps: optimizer steps that `initial` averages over.
        reference_decay: :math:`\delta` of `running`, in [0, 1].
        prior_reference: a reference in nats that is known beforehand. `initial` keeps it from the
            first step on, `running` starts from it.

    Raises:
        ValueError: an argument outside its range.

    Reference: PGPO (arXiv 2606.03620), eq. 9.
    Choice: `rho_max`, which the paper leaves open, and the references: token-mean signals are a few
    hundredths of a nat, so exp(alpha * I) hardly leaves 1. The paper wants rho >= 1, its formula
    gives less for a negative signal; the clip at `rho_min` holds for both readings. While a
    reference is not positive, it has no ratio: a signal above zero leaves the step as it is, and
    any other takes `rho_min`.
    """

    sensitivity: float = 1.0
    rho_max: float = 2.0
    rho_min: float = 1.0
    reference: SignalReference = "none"
    reference_steps: int = 10
    reference_decay: float = 0.01
    prior_reference: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)

    def init(self) -> ViscosityState:
        """The state before the first step."""
        return ViscosityState(reference=self.prior_reference)

    def step(self, signal: float, state: ViscosityState) -> tuple[float, ViscosityState]:
        """Multiplier for a step with this signal (nats), and the state after it.

        Raises:
            ValueError: the signal is not finite.
        """
        if not math.isfinite(signal):
            raise ValueError(f"the information signal must be finite, got {signal!r}")
        reference = self._updated_reference(signal, state)
        state = ViscosityState(reference, state.steps + 1)
        if self.sensitivity == 0:
            return 1.0, state
        if reference is not None and reference <= REFERENCE_FLOOR:
            return (self.rho_min if signal <= 0 else 1.0), state
        drive = signal if reference is None else signal / reference - 1
        # Above the cap the exponential may overflow, so the exponent is clipped first; the clip
        # after it makes the bounds exact.
        rho = math.exp(min(self.sensitivity * drive, math.log(self.rho_max)))
        return min(max(rho, self.rho_min), self.rho_max), state

    def _updated_reference(self, signal: float, state: ViscosityState) -> float | None:
        old = state.reference
        if self.reference == "none":
            return None
        if self.reference == "initial" and (
            self.prior_reference is not None or state.steps >= self.reference_steps
        ):
            return old
        if old is None:
            return signal
        if self.reference == "initial":
            weight = 1 / (state.steps + 1)  # a convex sum, which cannot overflow
            return (1 - weight) * old + weight * signal
        return max(signal, (1 - self.reference_decay) * old + self.reference_decay * signal)
