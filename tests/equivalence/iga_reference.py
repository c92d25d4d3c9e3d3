"""The slow oracle: one backward pass per domain, whole gradients, exact SVD.

It shares no code with the engine and reads gradients off the frozen weights themselves, so that the
two can be compared. Without dropout only: a frozen weight sees the input before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from poise.iga.adapters import Adapter
from poise.iga.settings import IGA


def reference_gradients(
    model: nn.Module,
    adapters: Sequence[Adapter],
    losses: Tensor,
    weights: Tensor,
    method: IGA,
) -> list[tuple[Tensor, Tensor]]:
    """IGA's gradients of A and B for every adapter, by K backward passes.

    Choice: with one domain present, plain fine-tuning's, without mask and projection.

    Args:
        model: a PEFT model, whose adapted weights require gradients (see `require_base_gradients`).
        adapters: from `find_adapters`.
        losses: (K,) mean losses of the domains, of one forward pass.
        weights: (K,) weights, which add up to 1; 0 for a missing domain.
        method: the settings.

    Returns:
        (r, in) and (out, r) for every adapter.
    """
    if method.space == "weight":
        tensors = [base_weight(model, adapter) for adapter in adapters]
    else:
        tensors = [p for adapter in adapters for p in adapter.parameters]
    present = [k for k in range(len(losses)) if float(weights[k]) > 0]
    per_domain = [
        torch.autograd.grad(losses[k], tensors, retain_graph=True, allow_unused=True)
        for k in present
    ]
    shares = weights[present]
    masked = []
    for index, tensor in enumerate(tensors):
        columns = [g[index] for g in per_domain]
        columns = [torch.zeros_like(tensor) if g is None else g for g in columns]
        if tensor.dtype != torch.float64:
            columns = [g.float() for g in columns]  # half precision has no SVD
        masked.append(_masked(columns, shares, method))
    if method.space == "factor":
        return list(zip(masked[::2], masked[1::2], strict=True))
    rank = None if method.projection == "none" or len(present) == 1 else method.rank or 0
    return [_factors(m, adapter, model, rank) for m, adapter in zip(masked, adapters, strict=True)]


def require_base_gradients(model: nn.Module, adapters: Sequence[Adapter]) -> None:
    """Lets the weights under the adapters have gradients."""
    for adapter in adapters:
        base_weight(model, adapter).requires_grad_(True)


def base_weight(model: nn.Module, adapter: Adapter) -> Tensor:
    """The frozen weight under an adapter, as its module keeps it."""
    weight: Tensor = _layer_of(model, adapter).get_base_layer().weight
    return weight


def _layer_of(model: nn.Module, adapter: Adapter) -> Any:
    for module in model.modules():
        if adapter.down in getattr(module, "lora_A", nn.ModuleDict()).values():
            return module
    raise ValueError(f"{adapter.name}: no layer of the model holds this adapter")


def _masked(gradients: Sequence[Tensor], weights: Tensor, method: IGA) -> Tensor:
    mean = sum(w * g for w, g in zip(weights, gradients, strict=True))
    assert isinstance(mean, Tensor)
    if len(gradients) == 1:
        return mean
    variance = sum(w * (g - mean) ** 2 for w, g in zip(weights, gradients, strict=True))
    assert isinstance(variance, Tensor)
    unit: Tensor | float = 1.0
    if method.scale == "layer":
        unit = variance.mean()
    if method.scale == "snr":
        unit = mean**2 + method.eps * (mean**2).mean()
    ratio = torch.where(variance == 0, 0.0, variance / unit)  # 0 / 0: no gradient, no conflict
    return torch.exp(-method.tau * ratio) * mean


def _factors(
    masked: Tensor, adapter: Adapter, model: nn.Module, rank: int | None
) -> tuple[Tensor, Tensor]:
    """Projected to a rank (0 is the adapter's own; None leaves it out), by the chain rule."""
    down, up = (p.detach().to(masked.dtype) for p in adapter.parameters)
    if _layer_of(model, adapter).fan_in_fan_out:  # GPT-2 keeps (in, out)
        masked = masked.T
    if rank is not None:
        left, values, right = torch.linalg.svd(masked, full_matrices=False)
        rank = rank or down.shape[0]
        masked = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
    return adapter.scaling * up.T @ masked, adapter.scaling * masked @ down.T
