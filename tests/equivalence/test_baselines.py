"""Each baseline against its textbook formula by autograd, one pass a domain, in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from poise.gradients.domains import DomainBatch
from poise.methods.baselines import make_baseline
from tests.compliance.gradients import gradients
from tests.equivalence.iga_gradients import Batch, Gradients, difference
from tests.equivalence.iga_models import toy

# Domains in no order, one missing (of four), one with a single sequence.
MIXED = Batch.of([2, 0, 1, 0, 2, 0], number=4)
PRESENT = (0, 1, 2)
by_both_weights = pytest.mark.parametrize("by_tokens", [False, True])


def _weights(by_tokens: bool, batch: Batch = MIXED) -> Tensor:
    weights = DomainBatch(batch.domains, batch.counts, by_tokens=by_tokens).weights
    return weights[list(PRESENT)]


def _factors(model: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in model.named_parameters() if "lora_" in n}


def _tokens(model: Any, domain: int, batch: Batch = MIXED) -> tuple[Tensor, Tensor]:
    """Logits and targets of a domain's loss tokens, by a forward pass of its own."""
    rows = batch.domains == domain
    kept = batch.kept[rows, 1:]
    return model(batch.ids[rows])[:, :-1][kept], batch.ids[rows, 1:][kept]


def _losses(model: Any) -> Tensor:
    return torch.stack([cross_entropy(*_tokens(model, k)) for k in PRESENT])


def _gradient(loss: Tensor, model: nn.Module) -> Tensor:
    parts = torch.autograd.grad(loss, list(_factors(model).values()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def _per_domain(model: Any) -> Tensor:
    """(K, P)"""
    return torch.stack([_gradient(loss, model) for loss in _losses(model)])


def _flat(found: Gradients, model: nn.Module) -> Tensor:
    """In the order of the model's parameters, as the oracles have it."""
    short = {
        name.replace(".lora_A.default.weight", ".A").replace(".lora_B.default.weight", ".B"): name
        for name in _factors(model)
    }
    assert short.keys() == found.keys()
    return torch.cat([found[name].flatten() for name in short])


def _distance(found: Tensor, expected: Tensor) -> float:
    assert bool(expected.any())
    return float((found - expected).norm() / expected.norm())


# Penalties: of separate forward passes, by a second derivative


def _irm(model: Any, weights: Tensor) -> Tensor:
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    squares = []
    for k in PRESENT:
        logits, targets = _tokens(model, k)
        loss = cross_entropy(scale * logits, targets)
        (slope,) = torch.autograd.grad(loss, scale, create_graph=True)
        squares.append(slope**2)
    return (weights * torch.stack(squares)).sum()


def _vrex(model: Any, weights: Tensor) -> Tensor:
    losses = _losses(model)
    return (weights * losses**2).sum() - (weights * losses).sum() ** 2


def _fishr(model: Any, weights: Tensor) -> Tensor:
    head = model.base_model.model.head.weight
    head.requires_grad_(True)
    variances = []
    for k in PRESENT:
        logits, targets = _tokens(model, k)
        losses = cross_entropy(logits, targets, reduction="none")
        each = [torch.autograd.grad(loss, head, create_graph=True)[0] for loss in losses]
        variances.append(torch.stack(each).var(0, correction=0))
    stacked = torch.stack(variances)
    mean = torch.einsum("k,kvh->vh", weights, stacked)
    head.requires_grad_(False)
    return (weights * (stacked - mean).square().sum((1, 2))).sum()


PENALTIES: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "irm": _irm,
    "vrex": _vrex,
    "fishr": _fishr,
}


@pytest.mark.parametrize("name", PENALTIES)
@by_both_weights
def test_a_penalty_is_its_textbook_formula(name: str, by_tokens: bool) -> None:
    model, weights = toy(), _weights(by_tokens)
    plain = (weights * _losses(model)).sum()
    penalty = PENALTIES[name](model, weights)
    size = penalty.item()
    assert size > 1e-8
    strength = plain.item() / size  # both parts count alike
    method = make_baseline(name, {"penalty_weight": strength, "warmup_steps": 10})
    for step, share in ((0, 0.0), (3, 0.3), (10, 1.0), (50, 1.0)):
        expected = _gradient(plain + share * strength * penalty, model)
        found = gradients(method, model, [MIXED], by_tokens, step)
        assert _distance(_flat(found, model), expected) < 1e-10
    assert method is not None
    assert method.figures.take()["penalty"] == pytest.approx(size, rel=1e-10)


def test_the_variance_of_v_rex_is_the_biased_one() -> None:
    model = toy()
    expected = _losses(model).var(correction=0).item()
    assert _vrex(model, _weights(False)).item() == pytest.approx(expected, rel=1e-10)


def test_fishr_is_the_same_in_parts_of_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    model, method = toy(), make_baseline("fishr", {"warmup_steps": 0})
    whole = gradients(method, model, [MIXED])
    monkeypatch.setattr("poise.methods.baselines.fishr._ROWS", 5)  # of 23
    assert difference(gradients(method, model, [MIXED]), whole) < 1e-12


# Weights


@by_both_weights
def test_group_dro_follows_the_exponentiated_gradient(by_tokens: bool) -> None:
    """Over some steps, whose losses fall; the missing domain is a group that is never drawn."""
    model, rate = toy(), 0.7
    method = make_baseline("group_dro", {"step_size": rate}, domains=4)
    q = torch.full((4,), 0.25, dtype=torch.float64)
    weights = torch.zeros(4, dtype=torch.float64)
    weights[list(PRESENT)] = _weights(by_tokens)
    for _ in range(4):
        losses = torch.cat([_losses(model), torch.zeros(1).double()])
        shares = weights * q / (weights * q).sum()
        expected = _gradient((shares * losses).sum(), model)
        found = _flat(gradients(method, model, [MIXED], by_tokens), model)
        assert _distance(found, expected) < 1e-10
        q = q * torch.exp(rate * losses.detach())
        q = q / q.sum()
        _descend(model, expected)
    assert float(q.max() / q.min()) > 2  # there was something to weigh


def _descend(model: nn.Module, gradient: Tensor) -> None:
    with torch.no_grad():
        for parameter in _factors(model).values():
            step, gradient = gradient[: parameter.numel()], gradient[parameter.numel() :]
            parameter -= 0.3 * step.view_as(parameter)


# Masks


def _and_mask(rows: Tensor, weights: Tensor, threshold: float) -> Tensor:
    mean = (weights[:, None] * rows).sum(0)
    mask = torch.zeros_like(mean)
    for place, column in enumerate(rows.T):
        balance = sum(float(w) * (1 if g > 0 else -1) for w, g in zip(weights, column, strict=True))
        mask[place] = abs(balance) > threshold - 1e-9
    return mask * mean / mask.mean()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
@by_both_weights
def test_the_and_mask_is_its_textbook_formula(threshold: float, by_tokens: bool) -> None:
    model, weights = toy(), _weights(by_tokens)
    method = make_baseline("and_mask", {"threshold": threshold})
    rows = _per_domain(model)
    expected = _and_mask(rows, weights, threshold)
    found = _flat(gradients(method, model, [MIXED], by_tokens), model)
    assert _distance(found, expected) < 1e-10
    assert 0 < int((found == 0).sum()) < len(found) or threshold < 0.5


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9])
@by_both_weights
def test_the_sand_mask_is_its_textbook_formula(threshold: float, by_tokens: bool) -> None:
    model, weights = toy(), _weights(by_tokens)
    method = make_baseline("sand_mask", {"threshold": threshold, "steepness": 0.5})
    rows = _per_domain(model)
    mean = torch.einsum("k,kp->p", weights, rows)
    variance = torch.einsum("k,kp->p", weights, rows**2) - mean**2
    agreement = torch.einsum("k,kp->p", weights, rows.sign()).abs()
    mask = torch.tanh(0.5 * variance.mean() / variance * (agreement - threshold)).clamp(min=0)
    found = _flat(gradients(method, model, [MIXED], by_tokens), model)
    assert _distance(found, mask * mean / mask.mean()) < 1e-9  # the variance is a difference
    assert 0.1 < float(mask.mean()) < 0.9


# Projections


def _projected(rows: Tensor, weights: Tensor, orders: tuple[tuple[int, ...], ...]) -> Tensor:
    """Algorithm 1: domain i is made orthogonal to those it conflicts with, in its order."""
    total = torch.zeros_like(rows[0])
    for i, order in enumerate(orders):
        row = rows[i].clone()
        for j in order:
            if row @ rows[j] < 0:
                row -= (row @ rows[j]) / (rows[j] @ rows[j]) * rows[j]
        total += weights[i] * row
    return total


def _conflicting(weights: Tensor) -> Any:
    """A model near the optimum of the mean loss, where gradients can but conflict."""
    model = toy()
    for _ in range(30):
        _descend(model, _gradient((weights * _losses(model)).sum(), model))
    return model


@by_both_weights
def test_pcgrad_is_algorithm_1_in_one_of_its_orders(by_tokens: bool) -> None:
    weights = _weights(by_tokens)
    model = _conflicting(weights)
    rows = _per_domain(model)
    assert int((rows @ rows.T < 0).sum()) >= 4
    orders = product(*[permutations({0, 1, 2} - {i}) for i in range(3)])
    results = torch.stack([_projected(rows, weights, order) for order in orders])
    method = make_baseline("pcgrad")
    found = [_flat(gradients(method, model, [MIXED], by_tokens), model) for _ in range(12)]
    nearest = [(results - f).norm(dim=1).min() / f.norm() for f in found]
    assert float(max(nearest)) < 1e-10
    plain = weights @ rows
    assert _distance(found[0], plain) > 1e-3
    assert len({round(float(f.norm()), 10) for f in found}) > 1  # the order is drawn anew
