"""Tools of the teacher's tests: tiny students, and a stand-in for their training."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from trl.trainer.utils import use_adapter

from poise.pgpo.teacher import EMATeacher
from tests.tiny import tiny_config

RATE = 0.05
LORA: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": ["q_proj", "down_proj"]},
    "DoRA": {"target_modules": ["q_proj"], "use_dora": True},
    "LoRA on embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
}


def full_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config()).to(dtype)


def lora_model(**settings: Any) -> Any:
    model = get_peft_model(full_model(), LoraConfig(r=4, **(LORA["LoRA"] | settings)))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as if trained: LoRA starts with B = 0, where student and base agree
        for name, param in model.named_parameters():
            if "lora_" in name:
                param.copy_(torch.randn(param.shape, generator=generator))
    return model


def move(model: nn.Module, size: float = 0.1) -> None:
    """A step of training: every trained parameter changes."""
    with torch.no_grad():
        for param in model.parameters():
            if param.requires_grad:
                param.add_(torch.randn_like(param) * size)


def step_end(teacher: EMATeacher, step: int) -> None:
    teacher.update({}, step, steps=step)


def logits(model: nn.Module, adapter: str | None = None) -> Tensor:
    ids = torch.arange(2, 12).view(2, 5)
    with torch.no_grad():
        if adapter is None:
            return model(input_ids=ids).logits
        with use_adapter(model, adapter_name=adapter):
            return model(input_ids=ids).logits


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
