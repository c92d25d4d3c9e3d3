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
    given = [] if isinstance(model, str) else list(model.parameters())
    # Beside an adapter that is made the base's own biases may be trained (`bias` of LoraConfig).
    given = [p for p in given if (p.ndim == 1 if is_made else p.requires_grad)]
    weights = [(param, param.data) for param in given]

    def undo(model: Any) -> None:
        for param, weight in weights:
            if param.requires_grad and param.dtype != weight.dtype:
                param.data = weight.to(param.device)
        weights.clear()  # else they would stay in memory beside their shards
        if is_made:
            cast_adapter_dtype(model, "default")
            _copy_again(model)
            for param in filter(_is_coarse, _trained(model)):
                param.data = param.data.to(model.dtype)

    return undo


def _copy_again(model: Any) -> None:
    """Gives modules of `modules_to_save` the digits that a cast took from them."""
    for wrapper in model.modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            firsts = wrapper.original_module.parameters()
            copies = wrapper.modules_to_save["default"].parameters()
            for copy, first in zip(copies, firsts, strict=True):
                if _is_coarse(copy) and copy.dtype != first.dtype:
                    copy.data = first.data.clone()


def _trained(model: Any) -> list[Any]:
    return [param for param in model.parameters() if param.requires_grad]


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
                "(dtype float32; with bf16=True products are in bfloat16 all the same), those of "
                "an adapter that you made, too (p.data = p.data.float()), or raise the learning "
                "rate.",
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
            if p.requires_grad and _is_coarse(p):
                yield (p.to_local() if hasattr(p, "to_local") else p).detach(), rate


def _is_coarse(param: Tensor) -> bool:
    return param.is_floating_point() and _eps(param) > _eps(torch.float32)


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
