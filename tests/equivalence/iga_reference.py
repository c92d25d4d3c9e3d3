"""IGA's gradients the slow way: one backward pass a domain, moments from sums, exact SVD.

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

    Args:
        model: a PEFT model, whose adapted weights require gradients (see `require_base_gradients`).
        adapters: from `find_adapters`.
        losses: (K,) mean losses of the domains, of one forward pass.
        weights: (K,) weights, which add up to 1; 0 for a missing domain.
        method: the settings.
    """
    layers = [layer_of(model, adapter) for adapter in adapters]
    tensors = [layer.get_base_layer().weight for layer in layers]
    present = [k for k in range(len(losses)) if float(weights[k]) > 0]
    per_domain = [
        torch.autograd.grad(losses[k], tensors, retain_graph=True, allow_unused=True)
        for k in present
    ]
    result = []
    for adapter, layer, tensor, *own in zip(adapters, layers, tensors, *per_domain, strict=True):
        gradients = [torch.zeros_like(tensor) if g is None else g for g in own]
        if tensor.dtype != torch.float64:
            gradients = [g.float() for g in gradients]  # half precision has no SVD
        if layer.fan_in_fan_out:  # GPT-2 keeps (in, out)
            gradients = [g.T for g in gradients]
        result.append(combined(adapter, gradients, weights[present], method))
    return result


def combined(
    adapter: Adapter, gradients: Sequence[Tensor], weights: Tensor, method: IGA
) -> tuple[Tensor, Tensor]:
    """IGA's gradients of A and B from those of the matrix, (out, in) of each domain.

    Choice: with one domain present, plain fine-tuning's, without mask and projection.
    """
    if method.space == "factor":
        pairs = [to_factors(adapter, gradient) for gradient in gradients]
        down, up = (_masked(parts, weights, method) for parts in zip(*pairs, strict=True))
        return down, up
    masked = _masked(gradients, weights, method)
    if method.projection != "none" and len(gradients) > 1:
        left, values, right = torch.linalg.svd(masked, full_matrices=False)
        rank = method.rank or adapter.down.weight.shape[0]
        masked = left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]
    return to_factors(adapter, masked)


def to_factors(adapter: Adapter, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """By the chain rule."""
    down, up = (p.detach().to(gradient.dtype) for p in adapter.parameters)
    return adapter.scaling * up.T @ gradient, adapter.scaling * gradient @ down.T


def require_base_gradients(model: nn.Module, adapters: Sequence[Adapter]) -> None:
    """Lets the weights under the adapters have gradients."""
    for adapter in adapters:
        base_weight(model, adapter).requires_grad_(True)


def base_weight(model: nn.Module, adapter: Adapter) -> Tensor:
    """The frozen weight under an adapter, as its module keeps it."""
    weight: Tensor = layer_of(model, adapter).get_base_layer().weight
    return weight


def layer_of(model: nn.Module, adapter: Adapter) -> Any:
    """The layer that holds an adapter."""
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
