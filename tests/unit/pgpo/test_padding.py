"""A short prompt beside a long one is scored as it is alone, also where positions are learned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from poise import PGPOTrainer
from tests.tiny import CHARACTERS, tiny_dataset, tiny_tokenizer, vowel_reward

PROMPTS = ["add 1 =", "add 10 and 20 ="]


@pytest.fixture
def make(make_config: Callable[..., Any]) -> Callable[..., Any]:
    def build(**settings: Any) -> Any:
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(CHARACTERS) + 3, n_embd=32, n_layer=2, n_head=4, n_positions=96,
            initializer_range=0.2, bos_token_id=None, eos_token_id=1,
        )  # fmt: skip
        trainer = PGPOTrainer(
            model=GPT2LMHeadModel(config),
            reward_funcs=vowel_reward,
            args=make_config(distillation_mode="full_logits", **settings),
            train_dataset=tiny_dataset(),
            processing_class=tiny_tokenizer(),
        )
        trainer.model.eval()
        return trainer

    return build


def _batch(prompts: list[str], hint: str) -> dict[str, Tensor]:
    rows = tiny_tokenizer()(prompts, padding=True, return_tensors="pt")
    hinted = tiny_tokenizer()([hint + p for p in prompts], padding=True, return_tensors="pt")
    answer = torch.tensor([[5, 6, 7, 8]]).repeat(len(prompts), 1)
    ones = torch.ones_like(answer)
    return {
        "prompt_ids": rows.input_ids,
        "prompt_mask": rows.attention_mask,
        "completion_ids": answer,
        "completion_mask": ones,
        "teacher_input_ids": torch.cat([hinted.input_ids, answer], 1),
        "teacher_attention_mask": torch.cat([hinted.attention_mask, ones], 1),
        "self_distillation_mask": torch.ones(len(prompts)),
    }


def test_the_loss_of_a_batch_is_the_mean_of_its_rows(make: Callable[..., Any]) -> None:
    trainer = make()
    trainer.model.double()
    trainer.teacher_model.double()
    together = trainer.compute_loss(trainer.model, _batch(PROMPTS, "it is 30. "))
    alone = [trainer.compute_loss(trainer.model, _batch([p], "it is 30. ")) for p in PROMPTS]
    torch.testing.assert_close(together, sum(alone) / 2, rtol=1e-12, atol=1e-12)


def test_log_probabilities_of_rollouts_do_not_see_the_padding(make: Callable[..., Any]) -> None:
    trainer = make(steps_per_generation=2)
    trainer.model.double()
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")

    def logps(prompts: list[str]) -> Tensor:
        batch = _batch(prompts, "")
        found: Tensor = trainer._compute_rollout_logps(*(batch[name] for name in names))
        return found

    alone = torch.cat([logps([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(logps(PROMPTS), alone, rtol=1e-12, atol=1e-12)


def test_trls_loss_warns_once_that_it_does(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make(tiled_loss=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            trainer.compute_loss(trainer.model, _batch(PROMPTS, ""))
    assert caplog.text.count("GPT2LMHeadModel takes the padding before a shorter prompt") == 1
