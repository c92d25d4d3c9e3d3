"""Trained weights that small steps can move: in float32, and a warning where they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.functional import cast_adapter_dtype
from peft.utils import ModulesToSaveWrapper
from torch import Tensor
from transformers import TrainerCallback

from ..sharding import local

logger = logging.getLogger(__name__)

_RATE_IS_NO_SIZE = ("sgd", "lbfgs", "lars")  # of a change: it is that of the gradient as well


def precision_before_trl(model: Any, peft_config: Any) -> Callable[[Any], None]:
    """Looks at a model before TRL does; returns what undoes TRL's casts to bfloat16 (of what is
    trained on a quantised base), to be called before teacher, optimizer and shards are made of it.

    Choice: an adapter that the trainer makes is float32, as PEFT's own are on any other base. What
    is trained beside it (`modules_to_save`) is in its model's precision, since rollouts hand it
    their hidden states as they are. An adapter that is handed over keeps the precision that it
    comes in.

    Args:
        model: what the trainer is handed, a name or a model.
        peft_config: of the adapter that it makes, or None.
    """
    is_made = peft_config is not None
    # Beside an adapter that is made the base's own biases may be trained (`bias` of LoraConfig).
    weights = [
        (param, param.data)
        for param in (() if isinstance(model, str) else model.parameters())
        if (param.ndim == 1 if is_made else param.requires_grad)
    ]

    def undo(model: Any) -> None:
        for param, weight in weights:
            if param.requires_grad and param.dtype != weight.dtype:
                param.data = weight.to(param.device)
        weights.clear()  # else they would stay in memory beside their shards
        if is_made:
            cast_adapter_dtype(model, "default")
            for wrapper in model.modules():
                if isinstance(wrapper, ModulesToSaveWrapper):
                    _copy_again(wrapper.original_module, wrapper.modules_to_save["default"])
            for param in model.parameters():
                if param.requires_grad and _is_coarse(param):
                    param.data = param.data.to(model.dtype)

    return undo


def _copy_again(original: Any, copies: Any) -> None:
    """Gives a module of `modules_to_save` the digits that a cast took from it."""
    for copy, first in zip(copies.parameters(), original.parameters(), strict=True):
        if _is_coarse(copy) and copy.dtype != first.dtype:
            copy.data = first.data.clone()


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
        if coarse and (share := _stuck_share(coarse, multiplier)) > 0.5:
            self._has_told = True
            weight, rate = coarse[0]
            logger.warning(
                "A step of %.2g (learning rate x multiplier) is below the rounding of %.0f %% of "
                "the trained weights (%s), which stay as they are. Keep trained weights in float32 "
                "(with bf16=True products are in bfloat16 all the same), those of an adapter that "
                "you made, too (p.data = p.data.float()), or raise the learning rate.",
                rate * multiplier,
                100 * share,
                str(weight.dtype).removeprefix("torch."),
            )


def _coarse_weights(optimizer: Any) -> Iterator[tuple[Tensor, float]]:
    """Trained weights of less precision than float32, and their highest rate."""
    optimizer = getattr(optimizer, "optimizer", optimizer)  # of accelerate's wrapper
    if any(name in type(optimizer).__name__.lower() for name in _RATE_IS_NO_SIZE):
        return
    # What is rounded off is kept by stochastic rounding (torchao's) or Kahan's sum (optimi's
    # `kahan_sum`, on unless False).
    if getattr(optimizer, "bf16_stochastic_round", False):
        return
    for group in optimizer.param_groups:
        if group.get("kahan_sum", False) is not False or group.get("use_kahan_summation"):
            continue
        rate = float(group.get("initial_lr", group["lr"]))
        for param in group["params"]:
            if param.requires_grad and _is_coarse(param):
                yield local(param), rate


def _is_coarse(param: Tensor) -> bool:
    is_float = param.is_floating_point()
    return is_float and torch.finfo(param.dtype).eps > torch.finfo(torch.float32).eps


def _stuck_share(weights: list[tuple[Tensor, float]], multiplier: float) -> float:
    """Share of the weights, but for zeros, that no such step moves; one copy to the CPU."""
    device, counts = weights[0][0].device, []
    for weight, rate in weights:
        bound = 4 * rate * multiplier / torch.finfo(weight.dtype).eps
        stuck, other = (weight.abs() > bound).sum(), (weight != 0).sum()
        counts.append(torch.stack([stuck, other]).to(device))
    stuck, other = torch.stack(counts).sum(0).tolist()
    return float(stuck / max(other, 1))
