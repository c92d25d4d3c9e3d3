"""The moved target against its formula in plain probabilities, and inside the tiled loss."""

from __future__ import annotations

import pytest
import torch

from poise.loss.divergence import Divergence
from poise.loss.terms import MovedTarget
from tests.equivalence.plain_loss import plain_divergence
from tests.equivalence.test_tiled_loss import DIVERGENCES, Problem, name_of

EPS = torch.finfo(torch.float64).eps
JENSEN_SHANNON = Divergence("full_logits", 0.5)


def plain_target(
    student: torch.Tensor, teacher: torch.Tensor, mix: float, beta: float
) -> torch.Tensor:
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


def test_where_both_agree_it_is_the_teacher_and_far_apart_it_goes_as_far_as_it_may() -> None:
    log_p = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    target = MovedTarget(0.15, 1e6).log_probs(log_p, log_p)
    torch.testing.assert_close(target, log_p, rtol=0, atol=1e6 * 1e2 * EPS)
    other = torch.randn(2, 7, dtype=torch.float64).log_softmax(-1)
    far = MovedTarget(0.15, 1e6).log_probs(log_p, other)
    expected = (0.85 * other + 0.15 * log_p).log_softmax(-1)
    torch.testing.assert_close(far, expected, rtol=0, atol=1e2 * EPS)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_tokens_that_neither_can_write_count_nothing(alpha: float) -> None:
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
def test_values_outside_their_range(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        MovedTarget(**setting)
