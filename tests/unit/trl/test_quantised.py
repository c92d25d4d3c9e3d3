"""Bases of four bits stay as gradients flow through them, whatever runs before a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from poise import IGATrainer, PGPOTrainer
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.tiny import tiny_dataset, tiny_isomers, tiny_tokenizer, vowel_reward

bitsandbytes = pytest.importorskip("bitsandbytes")
LORA = LoraConfig(r=2, target_modules="all-linear")


@pytest.fixture
def model(tiny_model_path: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny model in four bits, as on a CPU that bitsandbytes packs weights for."""

    def packs(*args: Any) -> None:
        raise AssertionError("packed, and no gradient flows")

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(bitsandbytes.nn.modules, "_convert_weight_packed_for_cpu", packs)
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(
        tiny_model_path, quantization_config=bits, dtype=torch.float32
    )


def _pgpo(model: Any, args: Any) -> PGPOTrainer:
    return PGPOTrainer(
        model, vowel_reward, args, tiny_dataset(), None, tiny_tokenizer(), peft_config=LORA
    )


def test_rollouts_pack_nothing(model: Any, make_config: Callable[..., Any]) -> None:
    _pgpo(model, make_config(max_steps=1)).train()


def test_an_evaluation_packs_nothing(model: Any, make_iga_config: Callable[..., Any]) -> None:
    rows = tiny_isomers()
    trainer = IGATrainer(
        model=model,
        args=make_iga_config(),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tiny_tokenizer(),
        peft_config=LORA,
    )
    trainer.evaluate()


def test_an_engine_in_a_loop_of_ones_own_packs_nothing(model: Any) -> None:
    adapted = get_peft_model(model, LORA)
    GradientEngine(adapted, IGA(space="direction"))
    with torch.no_grad():
        adapted.eval()(torch.tensor([[3, 4, 5]]))


def test_a_model_that_is_packed_is_refused(model: Any, make_config: Callable[..., Any]) -> None:
    model.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(
        ValueError, match=r"1\.mlp\.up_proj.*packed its weights.*load the model anew"
    ):
        _pgpo(model, make_config())
