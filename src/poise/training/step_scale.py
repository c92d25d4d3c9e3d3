"""Scales an optimizer's steps by the information signal, in any torch loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from ..core.information import SignalSum
from ..core.viscosity import Viscosity, ViscosityState
from .optimizer_kinds import (
    follows_rate,
    keeps_other_weights,
    parameters,
    refuse_steps_in_backward,
)

# Decoupled decay, by class name, in libraries that Poise does not import.
_DECOUPLED_NAMES = ("adamw", "adafactor", "lion", "muon")


@dataclass(frozen=True)
class StepRecord:
    """What the last step did: `signal` in nats (None if no sequence was distilled)."""

    signal: float | None
    multiplier: float


class StepScale:
    r"""Multiplies the steps of a torch optimizer by :math:`\rho_k`, its moments untouched.

    .. math:: \theta \leftarrow \theta - \eta\, \rho_k\, h_k

    where :math:`h_k` is what the optimizer makes of the clipped gradient. `observe` adds a
    micro-batch's signal; the next `optimizer.step()` sums over ranks, takes the multiplier from the
    viscosity law, and uses it for that step alone. A step without an observed sequence has
    multiplier 1.

    ```python
    from poise import StepScale, Viscosity, information_sum

    scale = StepScale(optimizer, Viscosity(sensitivity=1.0))
    scale.observe(information_sum(student_entropy - teacher_entropy, mask))
    loss.backward()
    optimizer.step()  # scaled
    print(scale.last.multiplier)
    ```

    The scheduler sees the unscaled rate: it is changed in the optimizer's step pre-hook and
    restored in its post-hook. Optimizers whose change is not proportional to the rate (LBFGS,
    Rprop, Adafactor, ASGD; of other libraries what a trial on a toy parameter shows) are scaled by
    interpolation between the parameters before and after the step, at the price of one copy of the
    parameters during the step. What such an optimizer remembers of the step itself (LBFGS's
    curvature) is not scaled.

    Args:
        optimizer: a torch optimizer (not a wrapper of one).
        viscosity: the law.
        scale_weight_decay: whether decoupled weight decay is multiplied too. If not, the decay of
            the step is divided by :math:`\rho_k`, so it keeps its size.

    Raises:
        TypeError: not a torch optimizer, or one without step hooks (torchao's CPU offloading).
        ValueError: weight decay is on, not to be scaled, and enters the moments (an L2 penalty, as
            in Adam or SGD with momentum), where it cannot be told apart from the gradient. Or an
            optimizer that steps inside the backward (LOMO, layer-wise ones), or that keeps other
            weights than it trains (schedule-free ones): no multiplier of the step reaches those.

    Reference: PGPO (arXiv 2606.03620), the update for SGD and for adaptive optimizers.
    Choice: the paper does not say what becomes of weight decay; it keeps its size unless asked.
    """

    def __init__(
        self, optimizer: Optimizer, viscosity: Viscosity, *, scale_weight_decay: bool = False
    ) -> None:
        # accelerate's wrapper is a subclass too, but has no hooks of its own.
        if not isinstance(optimizer, Optimizer) or hasattr(optimizer, "optimizer"):
            raise TypeError(
                f"StepScale needs a torch.optim.Optimizer, got {type(optimizer).__name__}; "
                "of a wrapper, pass the optimizer inside"
            )
        if "_optimizer_step_pre_hooks" not in vars(optimizer):
            raise TypeError(
                f"{type(optimizer).__name__} runs no step hooks, by which StepScale multiplies; "
                "choose an optimizer that does, such as torch.optim.AdamW"
            )
        if viscosity.sensitivity != 0:
            _refuse_out_of_reach(optimizer)
        self.optimizer = optimizer
        self.viscosity = viscosity
        self.scale_weight_decay = scale_weight_decay
        self.state: ViscosityState = viscosity.init()
        self.last = StepRecord(signal=None, multiplier=1.0)
        self._pending: SignalSum | None = None
        self._saved_groups: list[dict[str, Any]] = []
        self._saved_params: list[tuple[Tensor, Tensor]] = []
        if viscosity.sensitivity != 0 and not scale_weight_decay:
            self._check_weight_decay()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def observe(self, signal: SignalSum) -> None:
        """Adds a micro-batch's signal (see `information_sum`) to that of the step that follows."""
        signal = SignalSum(*(part.detach() for part in signal))  # no graph outlives its backward
        if self._pending is not None:
            signal = SignalSum(*(a + b for a, b in zip(self._pending, signal, strict=True)))
        self._pending = signal

    def discard(self) -> None:
        """Forgets what was observed since the last step, as when that step is skipped."""
        self._pending = None

    def close(self) -> None:
        """Takes the hooks off the optimizer, which is left with its own rates."""
        self._restore()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """The reference's state, as plain JSON values."""
        return self.state.to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`'s output."""
        self.state = ViscosityState(**state)

    # The steps of one optimizer step, in order.

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._restore()  # a step that raised has left its rates behind
        self.last = self._take_multiplier()
        rho = self.last.multiplier
        if rho == 1.0:  # exactly the plain step
            return
        for group in optimizer.param_groups:
            self._saved_groups.append({k: group[k] for k in ("lr", "weight_decay") if k in group})
            if self._follows_rate:
                group["lr"] = group["lr"] * rho
            if not self.scale_weight_decay and group.get("weight_decay"):
                group["weight_decay"] = group["weight_decay"] / rho
        if not self._follows_rate:
            trained = (p for p in parameters(optimizer) if p.requires_grad)
            self._saved_params = [(p, p.detach().clone()) for p in trained]

    @cached_property
    def _follows_rate(self) -> bool:
        return follows_rate(self.optimizer)

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for param, before in self._saved_params:
                param.copy_(before + self.last.multiplier * (param - before))
        self._restore()

    def _restore(self) -> None:
        for group, saved in zip(self.optimizer.param_groups, self._saved_groups, strict=False):
            group.update(saved)
        self._saved_groups, self._saved_params = [], []

    def _take_multiplier(self) -> StepRecord:
        pending, self._pending = self._pending, None
        if pending is None and not _is_distributed():
            return StepRecord(signal=None, multiplier=1.0)
        total, count = _sum_over_ranks(pending, self._device())
        if count == 0:
            return StepRecord(signal=None, multiplier=1.0)
        signal = total / count
        if not math.isfinite(signal):  # whoever lets such a step through gets the plain one
            return StepRecord(signal=signal, multiplier=1.0)
        rho, self.state = self.viscosity.step(signal, self.state)
        return StepRecord(signal=signal, multiplier=rho)

    def _device(self) -> torch.device:
        return next(parameters(self.optimizer)).device

    def _check_weight_decay(self) -> None:
        name = type(self.optimizer).__name__
        for group in self.optimizer.param_groups:
            if group.get("weight_decay") and not _decay_is_separate(name, group):
                raise ValueError(
                    f"{name} adds weight decay ({group['weight_decay']}) to the gradient, so it "
                    "passes through the moments and cannot keep its size when the step is scaled; "
                    "use AdamW, weight_decay=0, or scale_weight_decay=True"
                )


def _refuse_out_of_reach(optimizer: Optimizer) -> None:
    refuse_steps_in_backward(optimizer, "StepScale's multiplier")
    if keeps_other_weights(optimizer):
        raise ValueError(
            f"{type(optimizer).__name__} evaluates and saves other weights than it trains, for "
            "which a multiplier of its step does not hold; choose another optimizer, such as "
            "AdamW, or sensitivity=0"
        )


def _decay_is_separate(optimizer_name: str, group: dict[str, Any]) -> bool:
    if any(name in optimizer_name.lower() for name in _DECOUPLED_NAMES):
        return True
    if optimizer_name == "SGD":  # without momentum, L2 and decoupled decay are the same step
        return not group.get("momentum")
    return bool(group.get("decoupled_weight_decay"))


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _sum_over_ranks(pending: SignalSum | None, device: torch.device) -> tuple[float, float]:
    """Both sums over all ranks; a rank that observed nothing takes part with zeros."""
    sums = torch.zeros(2) if pending is None else torch.stack(pending)
    if _is_distributed():  # in one type, whatever each rank observed
        wide = torch.float32 if device.type == "mps" else torch.float64
        sums = sums.to(device, wide)
        dist.all_reduce(sums)
    total, count = sums.tolist()
    return total, count
