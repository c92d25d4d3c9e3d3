"""Each objective against its textbook formula by autograd, one pass a domain, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from poise.iga.baselines import make_baseline
from tests.compliance.gradients import gradients
from tests.equivalence.domain_oracles import (
    MIXED,
    PRESENT,
    by_both_weights,
    descend,
    distance,
    domain_losses,
    domain_tokens,
    factor_gradient,
    flattened,
    present_weights,
)
from tests.equivalence.iga_gradients import difference
from tests.equivalence.iga_models import toy

# Penalties: of separate forward passes, by a second derivative


def _irm(model: Any, weights: Tensor) -> Tensor:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    squares = []
    for k in PRESENT:
        logits, targets = domain_tokens(model, k)
        loss = cross_entropy(scale * logits, targets)
        (slope,) = torch.autograd.grad(loss, scale, create_graph=True)
        squares.append(slope**2)
    return (weights * torch.stack(squares)).sum()


def _vrex(model: Any, weights: Tensor) -> Tensor:
    losses = domain_losses(model)
    return (weights * losses**2).sum() - (weights * losses).sum() ** 2


def _variances(model: Any) -> Tensor:
    """(K, V, H), of each token's own gradient."""
    head = model.base_model.model.head.weight
    head.requires_grad_(True)
    variances = []
    for k in PRESENT:
        logits, targets = domain_tokens(model, k)
        losses = cross_entropy(logits, targets, reduction="none")
        each = [torch.autograd.grad(loss, head, create_graph=True)[0] for loss in losses]
        variances.append(torch.stack(each).var(0, correction=0))
    head.requires_grad_(False)
    return torch.stack(variances)


def _fishr(model: Any, weights: Tensor) -> Tensor:
    variances = _variances(model)
    mean = torch.einsum("k,kvh->vh", weights, variances)
    return (weights * (variances - mean).square().sum((1, 2))).sum()


def _relative_fishr(model: Any, weights: Tensor) -> Tensor:
    mean = torch.einsum("k,kvh->vh", weights, _variances(model)).detach()
    return _fishr(model, weights) / mean.square().sum()


Penalty = Callable[[Any, Tensor], Tensor]
PENALTIES: dict[str, tuple[str, Penalty, dict[str, Any]]] = {
    "irm": ("irm", _irm, {}),
    "vrex": ("vrex", _vrex, {}),
    "fishr": ("fishr", _fishr, {"relative": False}),
    "fishr, relative": ("fishr", _relative_fishr, {}),
}


@pytest.mark.parametrize("case", PENALTIES)
@by_both_weights
def test_a_penalty_is_its_textbook_formula(case: str, by_tokens: bool) -> None:
    name, formula, options = PENALTIES[case]
    model, weights = toy(), present_weights(by_tokens)
    plain = (weights * domain_losses(model)).sum()
    penalty = formula(model, weights)
    size = penalty.item()
    assert size > 1e-8
    strength = plain.item() / size  # both parts count alike
    method = make_baseline(name, options | {"penalty_weight": strength, "warmup_steps": 10})
    for step, share in ((0, 0.0), (3, 0.3), (10, 1.0), (50, 1.0)):
        expected = factor_gradient(plain + share * strength * penalty, model)
        found = gradients(method, model, [MIXED], by_tokens, step)
        assert distance(flattened(found, model), expected) < 1e-10
    assert method is not None
    assert method.figures.take()["penalty"] == pytest.approx(size, rel=1e-10)


def test_the_variance_of_v_rex_is_the_biased_one() -> None:
    model = toy()
    expected = domain_losses(model).var(correction=0).item()
    assert _vrex(model, present_weights(False)).item() == pytest.approx(expected, rel=1e-10)


def test_fishr_is_the_same_in_parts_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = toy(), make_baseline("fishr", {"warmup_steps": 0})
    whole = gradients(method, model, [MIXED])
    monkeypatch.setattr("poise.iga.baselines.fishr._ROWS", 5)  # of 23
    assert difference(gradients(method, model, [MIXED]), whole) < 1e-12


# Weights


@by_both_weights
def test_group_dro_follows_the_exponentiated_gradient(by_tokens: bool) -> None:
    """Over some steps, whose losses fall; the missing domain is a group that is never drawn."""
    model, rate = toy(), 0.7
    method = make_baseline("group_dro", {"step_size": rate}, domains=4)
    q = torch.full((4,), 0.25, dtype=torch.float64)
    weights = torch.zeros(4, dtype=torch.float64)
    weights[list(PRESENT)] = present_weights(by_tokens)
    for _ in range(4):
        losses = torch.cat([domain_losses(model), torch.zeros(1).double()])
        shares = weights * q / (weights * q).sum()
        expected = factor_gradient((shares * losses).sum(), model)
        found = flattened(gradients(method, model, [MIXED], by_tokens), model)
        assert distance(found, expected) < 1e-10
        q = q * torch.exp(rate * losses.detach())
        q = q / q.sum()
        descend(model, expected)
    assert float(q.max() / q.min()) > 2  # there was something to weigh
