"""Each aggregator against its textbook formula on gradients of one pass a domain, in float64."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.iga.baselines import make_baseline
from tests.compliance.gradients import gradients
from tests.equivalence.domain_oracles import (
    MIXED,
    by_both_weights,
    descend,
    distance,
    domain_gradients,
    domain_losses,
    factor_gradient,
    flattened,
    present_weights,
)
from tests.equivalence.iga_models import toy

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
    model, weights = toy(), present_weights(by_tokens)
    method = make_baseline("and_mask", {"threshold": threshold})
    rows = domain_gradients(model)
    expected = _and_mask(rows, weights, threshold)
    found = flattened(gradients(method, model, [MIXED], by_tokens), model)
    assert distance(found, expected) < 1e-10
    assert 0 < int((found == 0).sum()) < len(found) or threshold < 0.5


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9])
@by_both_weights
def test_the_sand_mask_is_its_textbook_formula(threshold: float, by_tokens: bool) -> None:
    model, weights = toy(), present_weights(by_tokens)
    method = make_baseline("sand_mask", {"threshold": threshold, "steepness": 0.5})
    rows = domain_gradients(model)
    mean = torch.einsum("k,kp->p", weights, rows)
    variance = torch.einsum("k,kp->p", weights, rows**2) - mean**2
    agreement = torch.einsum("k,kp->p", weights, rows.sign()).abs()
    mask = torch.tanh(0.5 * variance.mean() / variance * (agreement - threshold)).clamp(min=0)
    found = flattened(gradients(method, model, [MIXED], by_tokens), model)
    assert distance(found, mask * mean / mask.mean()) < 1e-9  # the variance is a difference
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
        descend(model, factor_gradient((weights * domain_losses(model)).sum(), model))
    return model


@by_both_weights
def test_pcgrad_is_algorithm_1_in_one_of_its_orders(by_tokens: bool) -> None:
    weights = present_weights(by_tokens)
    model = _conflicting(weights)
    rows = domain_gradients(model)
    assert int((rows @ rows.T < 0).sum()) >= 4
    orders = product(*[permutations({0, 1, 2} - {i}) for i in range(3)])
    results = torch.stack([_projected(rows, weights, order) for order in orders])
    method = make_baseline("pcgrad")
    found = [flattened(gradients(method, model, [MIXED], by_tokens), model) for _ in range(12)]
    nearest = [(results - f).norm(dim=1).min() / f.norm() for f in found]
    assert float(max(nearest)) < 1e-10
    plain = weights @ rows
    assert distance(found[0], plain) > 1e-3
    assert len({round(float(f.norm()), 10) for f in found}) > 1  # the order is drawn anew
