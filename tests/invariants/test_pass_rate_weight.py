"""SDPO with each question weighed by its pass rate, seen in whole steps and runs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from poise import PGPOTrainer
from tests.exact import ROUNDING
from tests.tiny import UNSCALED, tiny_dataset

Make = Callable[..., PGPOTrainer]
WEIGHED = {"pass_rate_weight": True, "per_device_train_batch_size": 12}


@pytest.fixture
def make_trainer(make_config: Callable[..., Any], exact_model_path: str, float64: None) -> Make:
    def make(successes: list[int], **settings: Any) -> PGPOTrainer:
        """`successes`: how many of the four rollouts of each prompt of a batch succeed."""

        def reward(completions: list[str], **columns: Any) -> list[float]:
            return [float(i % 4 < successes[i // 4]) for i in range(len(completions))]

        config = make_config(
            distillation_mode="full_logits",
            distillation_alpha=1.0,
            teacher_model_kind="live",
            **settings,
        )
        return PGPOTrainer(
            model=exact_model_path,
            reward_funcs=reward,
            args=config,
            train_dataset=tiny_dataset(),
        )

    return make


def _weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def _history(trainer: PGPOTrainer, key: str) -> list[float]:
    return [log[key] for log in trainer.state.log_history if key in log]


def _sample_losses(model: torch.nn.Module, batch: dict[str, Tensor]) -> list[Tensor]:
    """Reverse KL of each sample, a mean over its tokens, by whole forwards one at a time."""

    def log_probabilities(prompt: Tensor, mask: Tensor, completion: Tensor) -> Tensor:
        ids = torch.cat([prompt[mask > 0], completion])
        return model(ids[None]).logits[0, -len(completion) - 1 : -1].log_softmax(-1)

    losses, width = [], batch["completion_ids"].size(1)
    for i, row in enumerate(batch["completion_ids"]):
        completion = row[batch["completion_mask"][i] > 0]
        student = log_probabilities(batch["prompt_ids"][i], batch["prompt_mask"][i], completion)
        with torch.no_grad():
            context = slice(0, -width)
            teacher = log_probabilities(
                batch["teacher_input_ids"][i, context],
                batch["teacher_attention_mask"][i, context],
                completion,
            )
        losses.append((student.exp() * (student - teacher)).sum(-1).mean())
    return losses


@pytest.mark.usefixtures("device")
def test_a_step_is_that_of_the_loss_weighed_by_hand(make_trainer: Make) -> None:
    plain_descent = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}
    trainer = make_trainer([1, 2, 4], **UNSCALED, **WEIGHED, **plain_descent)
    model = copy.deepcopy(trainer.model)
    trainer.train()
    assert trainer._buffered_inputs is not None
    losses = _sample_losses(model, trainer._buffered_inputs[0])
    # The one that succeeds alone has no sibling to be shown; the last question has no weight.
    by_hand = [0.0] + [3**0.5 / 4] * 3 + [0.5] * 4 + [0.0] * 4
    total = sum(w * loss for w, loss in zip(by_hand, losses, strict=True)) / sum(by_hand)
    gradients = torch.autograd.grad(total, list(model.parameters()))
    expected = _weights(model) - torch.cat([g.flatten() for g in gradients])
    assert (expected - _weights(model)).norm() > 1e-3
    assert (_weights(trainer.model) - expected).norm() <= ROUNDING * expected.norm()
    assert _history(trainer, "pgpo/distilled_fraction") == [7 / 12]


@pytest.mark.usefixtures("device")
def test_without_a_question_between_always_and_never_nothing_is_distilled(
    make_trainer: Make,
) -> None:
    trainer = make_trainer([4, 0, 4], **WEIGHED)
    before = _weights(trainer.model)
    trainer.train()
    assert torch.equal(_weights(trainer.model), before)
    assert _history(trainer, "pgpo/distilled_fraction") == [0.0] * 3
    assert _history(trainer, "pgpo/multiplier") == [1.0] * 3
    assert _history(trainer, "pgpo/skipped_steps") == [0] * 3
    assert _history(trainer, "pgpo/information_signal") == []


@pytest.mark.usefixtures("device")
def test_micro_batches_of_one_equal_one_batch(make_trainer: Make) -> None:
    # A random demonstration is drawn by the micro-batch's number.
    settings = WEIGHED | {"random_demonstration": False}
    whole = make_trainer([1, 2, 4], **settings)
    whole.train()
    cut = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 12}
    parts = make_trainer([1, 2, 4], **settings | cut)
    parts.train()
    for key in ("pgpo/information_signal", "grad_norm"):
        assert _history(parts, key) == pytest.approx(_history(whole, key), rel=ROUNDING), key
    difference = _weights(parts.model) - _weights(whole.model)
    assert difference.norm() <= ROUNDING * _weights(whole.model).norm()
