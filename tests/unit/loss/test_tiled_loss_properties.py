"""What holds for every student, teacher and tile size."""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poise.loss.divergence import Divergence
from poise.loss.tiled import DistillationOutput, tiled_distillation_loss

alphas = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])


@st.composite
def divergences(draw: st.DrawFn) -> Divergence:
    mode = draw(st.sampled_from(["full_logits", "topk_logits"]))
    if mode == "full_logits":
        return Divergence("full_logits", draw(alphas))
    return Divergence("topk_logits", draw(alphas), draw(st.integers(1, 3)), draw(st.booleans()))


@st.composite
def logits(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Student and teacher [N, V], from nearly uniform to nearly certain."""
    tokens, vocabulary = draw(st.integers(0, 9)), draw(st.integers(3, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sharpness = draw(st.sampled_from([0.01, 1.0, 30.0]))
    shape = (tokens, vocabulary)
    student = sharpness * torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = student + torch.randn(shape, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def loss_of(
    student: Tensor, teacher: Tensor, divergence: Divergence, tile: int | None
) -> DistillationOutput:
    tokens = torch.arange(len(student)) % student.shape[1]
    weights = torch.full((len(student),), 0.3, dtype=torch.float64)
    return tiled_distillation_loss(
        student, teacher, _same, _same, tokens, weights, divergence=divergence, tile_tokens=tile
    )


def _same(logits: Tensor) -> Tensor:
    return logits


def tolerance(divergence: Divergence) -> float:
    """A tail below TRL's bound of 1e-7 is held there: buckets then sum to a little more than 1."""
    return 1.01e-7 if divergence.add_tail else 1e-12


@given(logits(), divergences(), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_entropies_and_divergences_stay_in_their_ranges(
    pair: tuple[Tensor, Tensor], divergence: Divergence, tile: int
) -> None:
    output = loss_of(*pair, divergence, tile)
    largest = math.log(pair[0].shape[1])
    for value in (output.student_entropy, output.teacher_entropy):
        assert ((value >= 0) & (value <= largest + 1e-12)).all()
    assert (output.kl >= -1e-12).all()
    slack = tolerance(divergence)
    assert (output.per_token_loss >= -slack).all()
    if 0 < divergence.alpha < 1:
        assert (output.per_token_loss <= math.log(2) + slack).all()


@given(logits(), divergences(), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_nothing_pulls_a_student_that_equals_its_teacher(
    pair: tuple[Tensor, Tensor], divergence: Divergence, tile: int
) -> None:
    student = pair[0]
    output = loss_of(student, student.detach(), divergence, tile)
    output.loss.backward()
    assert output.loss.abs() < 1e-12
    assert student.grad is not None
    assert (student.grad.abs() < tolerance(divergence)).all()
    assert (output.kl == 0).all()


@given(logits(), divergences(), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 12)))
@settings(deadline=None, max_examples=30)
def test_the_size_of_a_tile_changes_nothing(
    pair: tuple[Tensor, Tensor], divergence: Divergence, first: int, second: int | None
) -> None:
    outputs = [loss_of(*pair, divergence, tile) for tile in (first, second)]
    for field in fields(DistillationOutput):
        one, other = (getattr(output, field.name) for output in outputs)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    one, other = (torch.autograd.grad(output.loss, pair[0])[0] for output in outputs)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
