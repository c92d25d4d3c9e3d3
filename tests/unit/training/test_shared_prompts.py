"""Rollouts whose prompts are read once are those of prompts that are read once a rollout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import nn

from poise.training import PGPOConfig, PGPOTrainer
from tests.tiny import RUN, save_tiny_model, tiny_dataset, vowel_reward

PROMPTS = ["the sum of 5 and 3 =", "the sum of 12 and 7 =", "the sum of"]
GROUP = 3


def make_trainer(folder: Path, share: bool, lora: bool) -> PGPOTrainer:
    return PGPOTrainer(
        model=save_tiny_model(folder / "model", seed=4),
        reward_funcs=vowel_reward,
        args=PGPOConfig(
            str(folder / "run"),
            **RUN | {"model_init_kwargs": {"dtype": torch.float64}, "share_prompts": share},
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
