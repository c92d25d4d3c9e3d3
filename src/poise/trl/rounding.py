"""A warning where steps are smaller than the rounding of the weights that they are to move."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

logger = logging.getLogger(__name__)

_RATE_IS_NO_SIZE = ("sgd", "lbfgs", "lars")  # of a change: it is that of the gradient as well


class RoundingCheck(TrainerCallback):  # type: ignore[misc]
    r"""Warns, once, if a step of learning rate x multiplier leaves most of the weights as they are.

    Looks at trained weights of less precision than float32, at the start with the schedule's
    highest rate, and at each log with a braked step.

    Choice: the rule is ours. Adam and its kind change a weight by the rate at most, as a rule. A
    float's neighbours are at least :math:`\epsilon |w| / 2` away, and a change of less than half of
    that is lost: a weight of :math:`|w| > 4 \eta \rho / \epsilon` stays (bfloat16: 0.005 at
    1e-5). It warns if more than half of those that are not zero do. Optimizers that keep what is
    rounded off, and those whose rate does not tell the size of a change (SGD), are passed over.
    """

    def __init__(self) -> None:
        self._has_told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._check(kwargs["optimizer"], 1.0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        multiplier = (logs or {}).get("pgpo/multiplier") or 1.0
        if multiplier < 1:
            self._check(kwargs["optimizer"], multiplier)

    def _check(self, optimizer: Any, multiplier: float) -> None:
        coarse = [] if self._has_told or optimizer is None else list(_coarse_weights(optimizer))
        if not coarse:
            return
        share = _stuck_share(coarse, multiplier)
        if share > 0.5:
            self._has_told = True
            weight, rate = coarse[0]
            logger.warning(
                "A step of %.2g (learning rate x multiplier) is below the rounding of %.0f %% of "
                "the trained weights (%s), which stay as they are. Keep trained weights in float32 "
                "(dtype float32; with bf16=True products are in bfloat16 all the same), adapters "
                "too (p.data = p.data.float(); TRL makes those of a QLoRA bfloat16, whatever dtype "
                "says), or raise the learning rate.",
                rate * multiplier,
                100 * share,
                str(weight.dtype).removeprefix("torch."),
            )


def _coarse_weights(optimizer: Any) -> Iterator[tuple[Tensor, float]]:
    """Trained weights of less precision than float32, and their highest rate."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # of accelerate's wrapper
    if any(name in type(optimizer).__name__.lower() for name in _RATE_IS_NO_SIZE):
        return
    for group in optimizer.param_groups:
        if _keeps_what_is_rounded_off(optimizer, group):
            continue
        rate = float(group.get("initial_lr", group["lr"]))
        for p in group["params"]:
            if p.requires_grad and p.is_floating_point() and _eps(p) > _eps(torch.float32):
                yield (p.to_local() if hasattr(p, "to_local") else p).detach(), rate


def _eps(of: Tensor | torch.dtype) -> float:
    return torch.finfo(of if isinstance(of, torch.dtype) else of.dtype).eps


def _keeps_what_is_rounded_off(optimizer: Any, group: dict[str, Any]) -> bool:
    """Kahan's sum (optimi's `kahan_sum`, on unless False) or stochastic rounding (torchao's)."""
    is_kahan = group.get("kahan_sum", False) is not False or group.get("use_kahan_summation")
    return bool(is_kahan or getattr(optimizer, "bf16_stochastic_round", False))


def _stuck_share(weights: list[tuple[Tensor, float]], multiplier: float) -> float:
    """Share of the weights, but for zeros, that no such step moves; one copy to the CPU."""
    device = weights[0][0].device
    counts = [
        torch.stack([(w.abs() > 4 * rate * multiplier / _eps(w)).sum(), (w != 0).sum()])
        for w, rate in weights
    ]
    stuck, other = torch.stack([count.to(device) for count in counts]).sum(0).tolist()
    return float(stuck / max(other, 1))
