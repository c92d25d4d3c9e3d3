"""What an optimizer does with its learning rate, and where it moves the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Of torch and DeepSpeed: the change is proportional to the learning rate, which the moments do not
# see.
_FOLLOW_RATE = {
    *("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Muon", "NAdam", "RAdam", "RMSprop", "SGD"),
    *("SparseAdam", "DeepSpeedCPUAdagrad", "DeepSpeedCPUAdam", "DeepSpeedCPULion", "FusedAdam"),
    "FusedLion",
}
_IN_BACKWARD = {"Lomo", "AdaLomo", "LayerWiseDummyOptimizer"}
# Decoupled decay, by class name, in libraries that Poise does not import.
_DECOUPLED_NAMES = ("adamw", "adafactor", "lion", "muon")
_TOY_RATE = 0.125
_FACTORS = (1.0, 0.5, 2.0, 0.25) * 3  # powers of two, so that scaling rounds nothing


def parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    """All parameters of all groups."""
    return (p for group in optimizer.param_groups for p in group["params"])


def refuse_steps_in_backward(optimizer: Any, bypassed: str) -> None:
    """Raises ValueError for what moves parameters before `step` is called: LOMO, layer-wise
    optimizers, torch's.

    Args:
        optimizer: an optimizer, its class, or transformers' name of one (`optim`).
        bypassed: what would have no effect, for the message.
    """
    if isinstance(optimizer, str):
        name = getattr(optimizer, "value", optimizer)
        steps = name in ("lomo", "adalomo") or name.endswith("_layerwise")
    else:
        kind = optimizer if isinstance(optimizer, type) else type(optimizer)
        name = kind.__name__
        own = parameters(optimizer) if isinstance(optimizer, Optimizer) else ()
        steps = any(base.__name__ in _IN_BACKWARD for base in kind.__mro__)
        steps = steps or any(hasattr(param, "_in_backward_optimizers") for param in own)
    if steps:
        raise ValueError(
            f"{name} steps inside the backward, past {bypassed}; choose an optimizer whose step() "
            "moves the parameters, such as 'adamw_torch'"
        )


def refuse_out_of_reach(optimizer: Optimizer) -> None:
    """Raises ValueError for what a multiplier of the step does not reach: an optimizer that steps
    inside the backward, needs a closure (LBFGS), or evaluates other weights than it trains
    (schedule-free ones)."""
    refuse_steps_in_backward(optimizer, "StepScale's multiplier")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        why, or_else = "'s step needs a closure, to look at several places, which", ""
    elif all(callable(getattr(optimizer, mode, None)) for mode in ("eval", "train")):
        why = " evaluates and saves other weights than it trains, which"
        or_else = ", or sensitivity=0"
    else:
        return
    raise ValueError(
        f"{type(optimizer).__name__}{why} a multiplier of the step does not reach; choose another "
        f"optimizer, such as AdamW{or_else}"
    )


def refuse_mixed_decay(optimizer: Optimizer) -> None:
    """Raises ValueError for weight decay that is added to the gradient and passes through the
    moments."""
    name = type(optimizer).__name__
    is_decoupled = any(kind in name.lower() for kind in _DECOUPLED_NAMES)
    if is_decoupled or getattr(optimizer, "adam_w_mode", False):  # DeepSpeed's, apex's
        return
    for group in optimizer.param_groups:
        if name == "SGD":  # without momentum L2 and decoupled decay are the same step
            is_separate = not group.get("momentum")
        else:
            is_separate = bool(group.get("decoupled_weight_decay"))
        if group.get("weight_decay") and not is_separate:
            raise ValueError(
                f"{name} adds weight decay ({group['weight_decay']}) to the gradient, so it passes "
                "through the moments; use AdamW, weight_decay=0, or scale_weight_decay=True"
            )


def follows_rate(optimizer: Optimizer) -> bool:
    """Whether a step's change is proportional to its rate, and later steps do not see that rate.

    Known of torch's own and DeepSpeed's. One of another library is tried: a fresh one with each
    group's settings takes twelve steps on a toy parameter, at a constant rate and at halved and
    doubled ones.

    Choice: ours. Weight decay is left out, and the toy weights are put back after each step, so
    that the comparison is of steps from one place. What cannot be made afresh does not pass.
    """
    if type(optimizer).__module__.startswith(("torch.optim", "deepspeed.")):
        return type(optimizer).__name__ in _FOLLOW_RATE
    device = next(parameters(optimizer), torch.empty(0)).device  # ZeRO-3 puts them out of sight
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            return all(_is_proportional(optimizer, g, device) for g in optimizer.param_groups)
    except Exception:  # any: it is another library's, made without its own arguments
        return False


def _is_proportional(optimizer: Optimizer, group: dict[str, Any], device: torch.device) -> bool:
    settings = {name: group[name] for name in optimizer.defaults if name in group}
    settings["lr"] = settings["lr"] * 0 + _TOY_RATE  # a tensor stays one
    if "weight_decay" in settings:
        settings["weight_decay"] = 0.0
    factors = torch.tensor(_FACTORS, device=device).view(-1, 1, 1)
    expected = factors * _toy_changes(type(optimizer), settings, [1.0] * len(_FACTORS), device)
    scaled = _toy_changes(type(optimizer), settings, _FACTORS, device)
    largest = (expected / factors).abs().max().item()
    # Weights of size 1 are rounded before and after each step.
    bound = 32 * torch.finfo(torch.float32).eps * (1 + 3 * largest)
    return (scaled - expected).abs().max().item() <= bound < largest / 32


def _toy_changes(
    kind: Any, settings: dict[str, Any], factors: Sequence[float], device: torch.device
) -> Tensor:
    """(steps, 8, 8) changes of a weight at its rate times each factor."""
    places = torch.arange(64.0, device=device).view(8, 8)
    start = places.cos()
    weight = nn.Parameter(start.clone())
    accepted = inspect.signature(kind).parameters.keys() & settings.keys()
    arguments = {name: settings[name] for name in accepted}
    optimizer = kind([settings | {"params": [weight]}], **arguments)
    (group,) = optimizer.param_groups
    rate, changes = group["lr"], []
    for step, factor in enumerate(factors):
        weight.grad = (places + step).sin()
        group["lr"] = rate * factor
        optimizer.step()
        changes.append(weight.detach() - start)
        weight.data.copy_(start)
    return torch.stack(changes)
