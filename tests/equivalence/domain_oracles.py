"""Losses and gradients of each domain by a pass of its own, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from poise.iga.domains import DomainBatch
from tests.equivalence.iga_gradients import Batch, Gradients

# Domains in no order, one missing (of four), one with a single sequence.
MIXED = Batch.of([2, 0, 1, 0, 2, 0], number=4)
PRESENT = (0, 1, 2)
by_both_weights = pytest.mark.parametrize("by_tokens", [False, True])


def present_weights(by_tokens: bool) -> Tensor:
    """(3,) of the domains that are there."""
    weights = DomainBatch(MIXED.domains, MIXED.counts).weights("tokens" if by_tokens else "equal")
    return weights[list(PRESENT)]


def factors(model: nn.Module) -> dict[str, Tensor]:
    """LoRA's parameters by name."""
    return {n: p for n, p in model.named_parameters() if "lora_" in n}


def domain_tokens(model: Any, domain: int) -> tuple[Tensor, Tensor]:
    """Logits and targets of a domain's loss tokens, by a forward pass of its own."""
    rows = MIXED.domains == domain
    kept = MIXED.kept[rows, 1:]
    return model(MIXED.ids[rows])[:, :-1][kept], MIXED.ids[rows, 1:][kept]


def domain_losses(model: Any) -> Tensor:
    """(3,) mean losses."""
    return torch.stack([cross_entropy(*domain_tokens(model, k)) for k in PRESENT])


def factor_gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """(P,)"""
    parts = torch.autograd.grad(loss, list(factors(model).values()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def domain_gradients(model: Any) -> Tensor:
    """(3, P)"""
    return torch.stack([factor_gradient(loss, model) for loss in domain_losses(model)])


def flattened(found: Gradients, model: nn.Module) -> Tensor:
    """In the order of the model's parameters, as the oracles have it."""
    short = {
        name.replace(".lora_A.default.weight", ".A").replace(".lora_B.default.weight", ".B"): name
        for name in factors(model)
    }
    assert short.keys() == found.keys()
    return torch.cat([found[name].flatten() for name in short])


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative to what is expected."""
    assert bool(expected.any())
    return float((found - expected).norm() / expected.norm())


def descend(model: nn.Module, gradient: Tensor) -> None:
    """A step along a flat gradient."""
    with torch.no_grad():
        for parameter in factors(model).values():
            step, gradient = gradient[: parameter.numel()], gradient[parameter.numel() :]
            parameter -= 0.3 * step.view_as(parameter)
