"""QLoRA: the trainer loads a quantised base, and IGA acts on its adapters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import BitsAndBytesConfig

from poise import IGATrainer
from tests.grids import grid

pytest.importorskip("bitsandbytes")


@pytest.mark.parametrize("space", grid(["direction", "factor", "weight"], ["direction"]))
def test_a_base_of_four_bits_is_trained(space: str, make: Callable[..., IGATrainer]) -> None:
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    arguments = {"quantization_config": bits}
    trainer = make(arguments=arguments, space=space, max_steps=10, domain_weights="equal")
    kinds = {type(m).__name__ for m in trainer.model.modules() if hasattr(m, "lora_A")}
    assert "Linear4bit" in kinds
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
