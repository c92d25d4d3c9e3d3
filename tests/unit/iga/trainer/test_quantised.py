"""QLoRA: the trainer loads a quantised base, and IGA acts on its adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig

from poise import IGATrainer
from tests.grids import grid
from tests.tiny import tiny_isomers

pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("space", grid(["direction", "factor", "weight"], ["direction"]))
def test_a_base_of_four_bits_is_trained(
    space: str, tiny_model_path: str, make_iga_config: Callable[..., Any]
) -> None:
    trainer = IGATrainer(
        model=tiny_model_path,
        args=make_iga_config(space=space, max_steps=10, domain_weights="equal"),
        train_dataset=tiny_isomers(),
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32
        ),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    kinds = {type(m).__name__ for m in trainer.model.modules() if hasattr(m, "lora_A")}
    assert "Linear4bit" in kinds
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
