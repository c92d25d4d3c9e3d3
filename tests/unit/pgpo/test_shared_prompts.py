"""Rollouts whose prompts are read once are those of prompts that are read once a rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from poise import PGPOConfig, PGPOTrainer
from tests.tiny import RUN, save_tiny_model, tiny_dataset, vowel_reward

PROMPTS = ["the sum of 5 and 3 =", "the sum of 12 and 7 =", "the sum of"]
GROUP = 3


def make_trainer(folder: Path, share: bool, lora: bool, **settings: Any) -> PGPOTrainer:
    return PGPOTrainer(
        model=save_tiny_model(folder / "model", seed=4),
        reward_funcs=vowel_reward,
        args=PGPOConfig(
            str(folder / "run"),
            **RUN
            | {"model_init_kwargs": {"dtype": torch.float64}, "share_prompts": share}
            | settings,
        ),
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, init_lora_weights=False) if lora else None,
    )


@pytest.mark.parametrize("lora", [False, True])
def test_rollouts_are_the_same_and_prompts_are_read_once(tmp_path: Path, lora: bool) -> None:
    drawn, read = {}, {}
    for share in (False, True):
        torch.manual_seed(2)
        trainer = make_trainer(tmp_path / str(share), share, lora)
        tokens: list[int] = []

        def count(_: nn.Module, inputs: tuple[torch.Tensor], seen: list[int] = tokens) -> None:
            seen.append(inputs[0].numel())

        trainer.model.get_input_embeddings().register_forward_pre_hook(count)
        ids = [
            trainer.processing_class(text)["input_ids"] for text in PROMPTS for _ in range(GROUP)
        ]
        torch.manual_seed(6)
        _, drawn[share] = trainer._generate(ids)
        assert "generate" not in vars(trainer.model)
        read[share] = sum(tokens)
    assert drawn[True] == drawn[False]
    # Nine rows as wide as the longest prompt; or the beginning once, the rest of three rows but
    # for their last token, and that of nine.
    width, begin = max(map(len, PROMPTS)), len("the sum of") - 1
    assert read[False] - read[True] == 9 * width - (begin + 3 * (width - 1 - begin) + 9)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [False, True])
def test_the_teacher_reads_a_prompt_once(tmp_path: Path, lora: bool, checkpointing: bool) -> None:
    settings = {"teacher_model_kind": "live", "gradient_checkpointing": checkpointing}
    trainer = make_trainer(tmp_path, True, lora, **settings)
    trainer.model.train()
    if checkpointing:  # as `train` does
        trainer.model.gradient_checkpointing_enable()
    texts = [prompt + end for prompt in PROMPTS[:2] for end in (" 8 ok", " 19.?", " no. ")]
    rows = trainer.processing_class(texts, padding=True, return_tensors="pt")
    batch = {
        "teacher_input_ids": rows["input_ids"],
        "teacher_attention_mask": rows["attention_mask"],
        "completion_ids": rows["input_ids"][:, -5:],
    }
    read: list[int] = []
    trainer.teacher_model.get_input_embeddings().register_forward_pre_hook(
        lambda _, inputs: read.append(inputs[0].numel())
    )
    hidden = []
    for share in (False, True):
        trainer.args.share_prompts = share
        hidden.append(trainer._teacher_hidden_states(batch)[1])
    ours, theirs = hidden
    # Rotary angles are float32 in a float64 model.
    bound = 32 * torch.finfo(torch.float32).eps * float(ours.abs().max())
    torch.testing.assert_close(theirs, ours, rtol=0.0, atol=bound)
    width, begin = len(PROMPTS[1]), len("the sum of ")
    # Six rows; or the beginning, the rest of two prompts but for its last token, six ends.
    assert read == [6 * (width + 5), begin, 2 * (width - 1 - begin), 6 * 6]
    assert trainer.model.is_gradient_checkpointing == checkpointing


def test_a_cache_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected no cache_implementation, found 'static'"):
        make_trainer(tmp_path, True, False, cache_implementation="static")
