"""The policy term of the tiled loss equals TRL's policy loss, alone and beside the distillation."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.loss.divergence import Divergence
from poise.loss.terms import PolicyTerm, sequence_old_logps
from poise.loss.tiled import tiled_distillation_loss, tiled_token_logps
from poise.trl.contract import SDPOTrainer
from tests.equivalence.plain_loss import plain_divergence
from tests.equivalence.test_tiled_loss import Problem

EPS = torch.finfo(torch.float64).eps
REVERSE = Divergence("full_logits", 1.0)
SAMPLES, LENGTH = 4, 5


class Rollouts(Problem):
    """Four sequences of two to five tokens; advantages of both signs."""

    def __init__(self) -> None:
        super().__init__(SAMPLES * LENGTH, 4, 13)
        lengths = torch.tensor([5, 2, 4, 3])
        self.mask = (torch.arange(LENGTH) < lengths[:, None]).double()
        self.advantages = torch.tensor([1.3, -0.4, 0.7, -1.1], dtype=torch.float64)
        own = self.head(self.student).log_softmax(-1).gather(-1, self.tokens[:, None]).detach()
        shift = torch.linspace(0.6, -0.6, LENGTH, dtype=torch.float64)
        shift = shift + torch.tensor([[-0.5], [0.4], [0.1], [0.0]], dtype=torch.float64)
        self.old = own.view(SAMPLES, LENGTH) + shift

    def trl(self, old: Tensor | None, level: str) -> Tensor:
        trainer = SimpleNamespace(
            importance_sampling_level=level,
            epsilon_low=0.2,
            epsilon_high=0.3,
            loss_type="grpo",
            model=SimpleNamespace(training=True),
            _metrics={"train": defaultdict(list)},
            accelerator=SimpleNamespace(gather=lambda value: value),
        )
        inputs = {
            "completion_ids": self.tokens.view(SAMPLES, LENGTH),
            "completion_mask": self.mask,
            "advantages": self.advantages,
        }
        if old is not None:
            inputs["old_per_token_logps"] = old
        logits = self.head(self.student).view(SAMPLES, LENGTH, -1)
        loss: Tensor = SDPOTrainer._compute_policy_loss(trainer, inputs, logits)
        return loss

    def term(self, old: Tensor | None, level: str = "token", share: float = 1.0) -> PolicyTerm:
        if old is not None and level == "sequence":
            logps = tiled_token_logps(self.student, self.head, self.tokens).view_as(old)
            old = sequence_old_logps(logps, old, self.mask)
        weights = share * self.mask / self.mask.sum(-1, keepdim=True) / SAMPLES
        return PolicyTerm(
            self.advantages[:, None].expand(-1, LENGTH).flatten(),
            weights.flatten(),
            None if old is None else old.flatten(),
            epsilon_low=0.2,
            epsilon_high=0.3,
        )

    def assert_same(self, ours: Tensor, theirs: Tensor) -> None:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e3 * EPS)
        inputs = [self.student, *self.head.parameters()]
        found, expected = torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs)
        assert all(gradient.norm() > 1e-3 for gradient in expected)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e4 * EPS)


@pytest.mark.parametrize("tile", [None, 1, 3])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("is_on_policy", [True, False])
def test_alone_it_is_trls_policy_loss(is_on_policy: bool, level: str, tile: int | None) -> None:
    rollouts = Rollouts()
    old = None if is_on_policy else rollouts.old
    # No token is distilled: nothing of the teacher is read.
    rollouts.weights = torch.zeros_like(rollouts.weights)
    rollouts.teacher = torch.full_like(rollouts.teacher, torch.nan)
    rollouts.teacher_head = None
    output = rollouts.tiled(divergence=REVERSE, policy=rollouts.term(old, level), tile_tokens=tile)
    rollouts.assert_same(output.loss, rollouts.trl(old, level))
    kept = rollouts.mask.flatten() != 0
    assert torch.equal(output.student_logps != 0, kept)
    assert not output.teacher_entropy.any() and not output.per_token_loss.any()


@pytest.mark.parametrize("is_on_policy", [True, False])
@pytest.mark.parametrize("distilled", [[0, 1, 2, 3], [1, 3], []], ids=str)
def test_beside_the_distillation_both_add_up(distilled: list[int], is_on_policy: bool) -> None:
    rollouts = Rollouts()
    old = None if is_on_policy else rollouts.old
    weights = torch.zeros_like(rollouts.mask)
    weights[distilled] = rollouts.mask[distilled] * 0.1
    rollouts.weights = weights.flatten()
    output = rollouts.tiled(divergence=REVERSE, policy=rollouts.term(old, share=0.3), tile_tokens=3)
    student = rollouts.head(rollouts.student).softmax(-1)
    teacher = rollouts.teacher_head(rollouts.teacher).softmax(-1).detach()
    distillation = (plain_divergence(student, teacher, REVERSE) * rollouts.weights).sum()
    rollouts.assert_same(output.loss, 0.3 * rollouts.trl(old, "token") + distillation)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_some_tokens_are_clipped_and_some_are_not(level: str) -> None:
    """What the tests above compare must come to both."""
    rollouts = Rollouts()
    logps = tiled_token_logps(rollouts.student, rollouts.head, rollouts.tokens)
    old = rollouts.term(rollouts.old, level).old_logps
    assert old is not None
    ratio, kept = (logps - old).exp(), rollouts.mask.flatten() != 0
    positive = (rollouts.advantages[:, None] > 0).expand(-1, LENGTH).flatten()
    above, below = (ratio > 1.3) & positive & kept, (ratio < 0.8) & ~positive & kept
    assert above.any() and below.any() and (kept & ~above & ~below).any()


def test_a_token_without_the_term_may_hold_anything() -> None:
    rollouts = Rollouts()
    rollouts.weights = (rollouts.mask * 0.1).flatten()
    settings: dict[str, Any] = {"divergence": REVERSE, "tile_tokens": 3}
    expected = rollouts.tiled(**settings)
    nothing = torch.zeros_like(rollouts.weights)
    term = PolicyTerm(torch.full_like(nothing, torch.nan), nothing)
    output = rollouts.tiled(**settings, policy=term)
    assert torch.equal(output.loss, expected.loss)
    ours, theirs = (torch.autograd.grad(o.loss, rollouts.student) for o in (output, expected))
    assert torch.equal(ours[0], theirs[0])


def test_shapes_are_checked() -> None:
    rollouts = Rollouts()
    term = PolicyTerm(torch.ones(3), torch.ones(SAMPLES * LENGTH))
    with pytest.raises(ValueError, match=r"policy\.advantages must have one value a token"):
        tiled_distillation_loss(
            rollouts.student,
            rollouts.teacher,
            rollouts.head,
            rollouts.teacher_head,
            rollouts.tokens,
            rollouts.weights,
            divergence=REVERSE,
            policy=term,
        )
