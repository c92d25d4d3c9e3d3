"""Weights of tokens against their formula, and through the tiled loss against plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poise.loss.divergence import Divergence
from poise.loss.terms import token_weights
from poise.loss.tiled import tiled_distillation_loss, tiled_entropy
from tests.equivalence.plain_loss import plain_divergence
from tests.equivalence.test_tiled_loss import Problem

EPS = torch.finfo(torch.float64).eps
H_T = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)
H_S = torch.tensor([1.0, 0.5, 0.5, 3.0], dtype=torch.float64)


def _weigh(kind: str, weights: Tensor, beta: float = 1.0, scale: float = 1.0) -> Tensor:
    return token_weights(kind, beta, weights, lambda: scale * H_T, lambda: scale * H_S)


def test_by_hand() -> None:
    equal = torch.tensor([0.25, 0.25, 0.0, 0.25], dtype=torch.float64)
    raw = [1.0, math.exp(-2), math.exp(-4)]  # the third token is not distilled
    mean = sum(raw) / 3
    expected = [0.25 * u / mean for u in raw]
    found = _weigh("teacher_entropy", equal, beta=2.0).tolist()
    assert found == pytest.approx([*expected[:2], 0.0, expected[2]], rel=16 * EPS)
    raw = [math.exp(1), math.exp(-0.5), math.exp(1)]
    mean = sum(raw) / 3
    expected = [0.25 * u / mean for u in raw]
    found = _weigh("information", equal).tolist()
    assert found == pytest.approx([*expected[:2], 0.0, expected[2]], rel=16 * EPS)


@pytest.mark.parametrize("kind", ["teacher_entropy", "information"])
@pytest.mark.parametrize("scale", [1.0, 1e4])  # the second would overflow or vanish
def test_the_total_weight_stays(kind: str, scale: float) -> None:
    weights = torch.tensor([0.1, 0.2, 0.3, 0.0], dtype=torch.float64)
    found = _weigh(kind, weights, scale=scale)
    assert found.sum().item() == pytest.approx(weights.sum().item(), rel=16 * EPS)
    assert found[3] == 0 and torch.isfinite(found).all()
    assert not torch.equal(found, weights)


def test_none_asks_for_nothing_and_gives_the_weights_themselves() -> None:
    weights = torch.ones(3)
    assert token_weights("none", 1.0, weights, lambda: 1 / 0, lambda: 1 / 0) is weights


def test_without_a_distilled_token_all_are_zero() -> None:
    zeros = torch.zeros(4)
    assert torch.equal(_weigh("information", zeros), zeros)


@pytest.mark.parametrize("kind", ["teacher_entropy", "information"])
def test_through_the_tiles_it_is_the_plain_loss_with_the_paper_s_weights(kind: str) -> None:
    problem = Problem(11, 4, 13)
    problem.weights = (problem.weights != 0).double() / 7
    kept = problem.weights != 0
    mask = problem.weights

    def entropy(hidden: Tensor, head: torch.nn.Module) -> Tensor:
        return tiled_entropy(hidden, head, tile_tokens=3, mask=mask)

    loss = tiled_distillation_loss(
        problem.student,
        problem.teacher,
        problem.head,
        problem.teacher_head,
        problem.tokens,
        token_weights(
            kind,
            0.7,
            problem.weights,
            lambda: entropy(problem.teacher, problem.teacher_head),
            lambda: entropy(problem.student, problem.head),
        ),
        divergence=Divergence("full_logits", 1.0),
        tile_tokens=3,
    ).loss
    student = problem.head(problem.student).softmax(-1)
    teacher = problem.teacher_head(problem.teacher).softmax(-1).detach()
    h_s, h_t = (-(p * p.log()).sum(-1).detach()[kept] for p in (student, teacher))
    raw = (0.7 * ((h_s if kind == "information" else 0) - h_t)).exp()
    divergences = plain_divergence(student[kept], teacher[kept], Divergence("full_logits", 1.0))
    plain = (divergences * raw / raw.mean()).sum() / 7
    assert loss.item() == pytest.approx(plain.item(), rel=1e3 * EPS)
    inputs = [problem.student, *problem.head.parameters()]
    ours, theirs = torch.autograd.grad(loss, inputs), torch.autograd.grad(plain, inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e4 * EPS, atol=1e4 * EPS)
