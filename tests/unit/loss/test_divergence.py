"""The maths of one tile: definitions, probabilities of zero, bad settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.loss.divergence import (
    Divergence,
    clipped_ratio,
    entropy,
    generalised_divergence,
    log_ratio,
    relative_entropy,
    token_divergence,
)

INF = float("inf")


def log(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_entropy_of_known_distributions() -> None:
    assert entropy(log(0.5, 0.5)).item() == pytest.approx(math.log(2))
    assert entropy(log(1.0, 0.0, 0.0)).item() == 0.0
    expected = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert entropy(log(0.9, 0.1, 0.0)).item() == pytest.approx(expected)


def test_relative_entropy_is_directed_and_infinite_only_where_mass_is_missing() -> None:
    p, q = log(0.5, 0.5, 0.0), log(0.25, 0.25, 0.5)
    assert relative_entropy(p, q).item() == pytest.approx(math.log(2))
    assert relative_entropy(q, p).item() == INF
    assert relative_entropy(p, p).item() == 0.0


def test_alpha_runs_from_forward_to_reverse_kl() -> None:
    s, t = log(0.7, 0.2, 0.1), log(0.2, 0.3, 0.5)
    assert torch.equal(generalised_divergence(s, t, 0.0), relative_entropy(t, s))
    assert torch.equal(generalised_divergence(s, t, 1.0), relative_entropy(s, t))
    # The middle is symmetric; near the ends the divergence vanishes like alpha times KL.
    torch.testing.assert_close(generalised_divergence(s, t, 0.3), generalised_divergence(t, s, 0.7))
    near = generalised_divergence(s, t, 1e-6) / 1e-6
    torch.testing.assert_close(near, relative_entropy(t, s), rtol=1e-4, atol=0.0)


def test_jensen_shannon_of_disjoint_distributions_is_log_two() -> None:
    value = generalised_divergence(log(1.0, 0.0), log(0.0, 1.0), 0.5)
    assert value.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "divergence",
    [
        *(Divergence("full_logits", alpha) for alpha in (0.0, 0.3, 0.5, 1.0)),
        *(Divergence("topk_logits", 0.5, top_k=3, add_tail=tail) for tail in (False, True)),
        Divergence("sampled_token", 1.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_vocabulary_masked_on_both_sides_equals_the_smaller_vocabulary(
    divergence: Divergence, dtype: torch.dtype
) -> None:
    """Logits of -inf on both sides give what their absence gives, gradients included."""
    torch.manual_seed(0)
    small = torch.randn(4, 5, dtype=dtype, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=dtype)
    places = torch.tensor([0, 2, 3, 6, 7])
    masked = torch.full((4, 9), -INF, dtype=dtype)
    tokens = torch.tensor([0, 1, 2, 3])

    def divergences(student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
        log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
        return token_divergence(divergence, log_s, log_t, tokens)

    expected = divergences(small, teacher, tokens)
    (gradient,) = torch.autograd.grad(expected.sum(), small)
    large = masked.index_copy(1, places, small.detach()).requires_grad_()
    value = divergences(large, masked.index_copy(1, places, teacher), places[tokens])
    (large_gradient,) = torch.autograd.grad(value.sum(), large)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(large_gradient[:, places], gradient)
    assert large_gradient.isfinite().all()
    assert large_gradient.sum(-1).abs().max() < 1e-5


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("tail", [False, True])
def test_a_support_larger_than_what_the_mask_leaves_has_no_nan(alpha: float, tail: bool) -> None:
    student = torch.tensor([[1.0, 0.5, -INF, -INF]], requires_grad=True)
    teacher = torch.tensor([[0.0, 2.0, -INF, -INF]])
    divergence = Divergence("topk_logits", alpha, top_k=3, add_tail=tail)
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    value = token_divergence(divergence, log_s, log_t, torch.tensor([0]))
    value.sum().backward()
    assert value.isfinite().all() and student.grad is not None
    assert student.grad.isfinite().all() and student.grad[:, :2].any()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_probabilities_that_underflow_have_no_nan(alpha: float) -> None:
    student = torch.tensor([[0.0, -500.0, -300.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -300.0, -500.0]])
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    value = generalised_divergence(log_s, log_t, alpha)
    value.sum().backward()
    assert value.item() == 0.0 and student.grad is not None
    assert not student.grad.any()
    assert entropy(log_s).item() == 0.0


def test_a_sampled_token_that_neither_side_can_say_counts_nothing() -> None:
    student = torch.tensor([[1.0, -INF, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -INF, 1.0]])
    log_s, log_t = student.log_softmax(-1), teacher.log_softmax(-1)
    value = token_divergence(Divergence("sampled_token", 1.0), log_s, log_t, torch.tensor([1]))
    value.sum().backward()
    assert value.item() == 0.0 and student.grad is not None
    assert not student.grad.any()


def test_a_teacher_without_mass_on_the_support_is_infinitely_far_not_nan() -> None:
    student, teacher = log(0.6, 0.4, 0.0), log(0.0, 0.0, 1.0)
    divergence = Divergence("topk_logits", 1.0, top_k=2)
    value = token_divergence(divergence, student, teacher, torch.tensor([0]))
    assert value.item() == INF


def test_the_ratio_is_clipped_above_and_has_no_gradient() -> None:
    logps = torch.tensor([-1.0, -1.0, -1.0, -INF], requires_grad=True)
    old = torch.tensor([-1.5, -9.0, -90.0, -INF])
    ratio = clipped_ratio(logps, old, clip=2.0)
    assert not ratio.requires_grad
    torch.testing.assert_close(ratio, torch.tensor([math.exp(0.5), 2.0, 2.0, 1.0]))
    lowest = clipped_ratio(torch.tensor([-90.0]), torch.tensor([-1.0]), clip=2.0)
    assert lowest.item() == pytest.approx(math.exp(-20))


def test_the_log_ratio_of_two_impossible_tokens_is_zero() -> None:
    a, b = torch.tensor([-INF, 0.0, -INF]), torch.tensor([-INF, -1.0, -1.0])
    assert torch.equal(log_ratio(a, b), torch.tensor([0.0, 1.0, -INF]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "top"}, "mode must be one of"),
        ({"mode": "full_logits", "alpha": -0.1}, r"alpha must lie in \[0, 1\]"),
        ({"mode": "full_logits", "alpha": float("nan")}, r"alpha must lie in \[0, 1\]"),
        ({"mode": "sampled_token"}, "reverse KL only"),
        ({"mode": "full_logits", "top_k": 5}, "belong to mode='topk_logits'"),
        ({"mode": "full_logits", "add_tail": True}, "belong to mode='topk_logits'"),
        ({"mode": "topk_logits"}, "needs top_k"),
        ({"mode": "topk_logits", "top_k": 0}, "needs top_k"),
        ({"mode": "topk_logits", "top_k": 2.5}, "needs top_k"),
    ],
)
def test_a_divergence_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Divergence(**settings)
