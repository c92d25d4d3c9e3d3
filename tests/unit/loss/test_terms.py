"""Token weights and the moved target, against their formulas, alone and through the tiled loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poise.loss.divergence import Divergence
from poise.loss.terms import MovedTarget, token_weights
from poise.loss.tiled import tiled_distillation_loss, tiled_entropy
from tests.equivalence.plain_loss import plain_divergence
from tests.equivalence.test_tiled_loss import DIVERGENCES, Problem, name_of

EPS = torch.finfo(torch.float64).eps
JENSEN_SHANNON = Divergence("full_logits", 0.5)
H_T = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64)
H_S = torch.tensor([1.0, 0.5, 0.5, 3.0], dtype=torch.float64)


def _weigh(kind: str, weights: Tensor, beta: float = 1.0, scale: float = 1.0) -> Tensor:
    return token_weights(kind, beta, weights, lambda: scale * H_T, lambda: scale * H_S)


def test_weights_by_hand() -> None:
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


def test_no_weighing_asks_for_nothing_and_gives_the_weights_themselves() -> None:
    weights = torch.ones(3)
    assert token_weights("none", 1.0, weights, lambda: 1 / 0, lambda: 1 / 0) is weights


@pytest.mark.parametrize("kind", ["teacher_entropy", "information"])
def test_through_the_tiles_weights_give_the_plain_loss_with_the_paper_s_weights(kind: str) -> None:
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


def plain_target(student: Tensor, teacher: Tensor, mix: float, beta: float) -> Tensor:
    """Q of probabilities [N, V]."""
    difference = plain_divergence(student, teacher, JENSEN_SHANNON)[:, None]
    share = 2 * mix * (1 / (1 + (-beta * difference).exp()) - 0.5)
    product = teacher ** (1 - share) * student**share
    return product / product.sum(-1, keepdim=True)


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=name_of)
def test_the_loss_is_the_divergence_from_the_moved_target(divergence: Divergence) -> None:
    problem = Problem(11, 4, 13)
    output = problem.tiled(divergence=divergence, target=MovedTarget(0.4, 3.0), tile_tokens=3)
    student = problem.head(problem.student).softmax(-1)
    teacher = problem.teacher_head(problem.teacher).softmax(-1).detach()
    target = plain_target(student.detach(), teacher, 0.4, 3.0)
    if divergence.mode == "sampled_token":
        rows = torch.arange(11)
        log_s, log_q = student[rows, problem.tokens].log(), target[rows, problem.tokens].log()
        per_token = (log_s - log_q).detach() * log_s
    else:
        per_token = plain_divergence(student, target, divergence)
    plain = (problem.weights * per_token).sum()
    torch.testing.assert_close(output.loss, plain, rtol=1e4 * EPS, atol=1e4 * EPS)
    inputs = [problem.student, *problem.head.parameters()]
    ours, theirs = torch.autograd.grad(output.loss, inputs), torch.autograd.grad(plain, inputs)
    torch.testing.assert_close(ours, theirs, rtol=1e5 * EPS, atol=1e5 * EPS)
    # What the step is measured by is still the teacher itself.
    still = problem.tiled(divergence=divergence, tile_tokens=3)
    assert torch.equal(output.kl, still.kl)
    assert not torch.equal(output.per_token_loss, still.per_token_loss)


def test_the_target_is_the_teacher_where_both_agree_and_far_apart_goes_as_far_as_it_may() -> None:
    log_p = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    target = MovedTarget(0.15, 1e6).log_probs(log_p, log_p)
    torch.testing.assert_close(target, log_p, rtol=0, atol=1e6 * 1e2 * EPS)
    other = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    far = MovedTarget(0.15, 1e6).log_probs(log_p, other)
    expected = (0.85 * other + 0.15 * log_p).log_softmax(-1)
    torch.testing.assert_close(far, expected, rtol=0, atol=1e2 * EPS)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_tokens_that_neither_can_write_count_nothing_in_the_target(alpha: float) -> None:
    full = Problem(6, 3, 8)
    masked = torch.zeros(8, dtype=torch.float64)
    masked[5] = -torch.inf
    student, teacher = full.head, full.teacher_head
    full.tokens = full.tokens.clamp(max=4)
    full.head = lambda hidden: student(hidden) + masked
    full.teacher_head = lambda hidden: teacher(hidden) + masked
    settings = {
        "divergence": Divergence("full_logits", alpha),
        "target": MovedTarget(0.15),
        "head_parameters": list(student.parameters()),
    }
    output = full.tiled(**settings)
    gradients = torch.autograd.grad(output.loss, [full.student, student.weight])
    assert torch.isfinite(output.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("setting", [{"mix": 0.0}, {"mix": 1.0}, {"mix": 0.1, "beta": 0.0}])
def test_a_target_outside_its_range(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        MovedTarget(**setting)
