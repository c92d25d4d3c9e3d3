"""Models on which per-domain gradients are easy to get wrong, in float64, with LoRA adapters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    Gemma2ForCausalLM,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    OPTForCausalLM,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
)

from tests.equivalence.iga_toys import (
    VOCABULARY,
    Flat,
    Frozen,
    Images,
    Pooled,
    Shared,
    SharedCheckpointed,
    Slices,
    Toy,
    TwoLengths,
    Unused,
)

SPECIAL: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
SMALL: dict[str, Any] = SPECIAL | {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def with_lora(model: nn.Module, *targets: str, **settings: Any) -> PeftModel:
    """A PEFT model in float64, both factors of which are random."""
    settings = {"r": 3, "lora_alpha": 5, "init_lora_weights": False} | settings
    config = LoraConfig(target_modules=list(targets) if targets else "all-linear", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tied weights: meant
        return get_peft_model(model, config).double()


def toy(kind: type[Toy] = Toy, **settings: Any) -> PeftModel:
    torch.manual_seed(0)
    return with_lora(kind(), "inner", "other", **settings)


def _small(
    kind: Any, *targets: str, config: dict[str, Any] | None = None, **settings: Any
) -> PeftModel:
    torch.manual_seed(0)
    model = kind(kind.config_class(**SMALL | (config or {})))
    return with_lora(model, *targets, **settings)


llama = partial(_small, LlamaForCausalLM)


def checkpointed(use_reentrant: bool, **settings: Any) -> PeftModel:
    model = llama(**settings)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    return model.train()


def gpt2() -> PeftModel:
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32} | dropout
    targets = ("c_attn", "c_proj", "c_fc")
    return _small(GPT2LMHeadModel, *targets, config=config, fan_in_fan_out=True)


def gemma() -> PeftModel:
    caps = {"final_logit_softcapping": 2.0, "attn_logit_softcapping": 3.0, "head_dim": 4}
    return _small(Gemma2ForCausalLM, config=caps)


def qwen() -> PeftModel:
    return _small(Qwen3ForCausalLM, config={"head_dim": 4}, use_rslora=True)


def opt() -> PeftModel:
    config = {"ffn_dim": 24, "max_position_embeddings": 32, "dropout": 0.0, "init_std": 0.3}
    targets = ("q_proj", "v_proj", "fc1", "fc2")
    return _small(OPTForCausalLM, *targets, config=config | {"word_embed_proj_dim": 16})


def t5() -> PeftModel:
    config = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    config |= {"dropout_rate": 0.0, "decoder_start_token_id": 0}
    targets = ("q", "k", "v", "o", "wi", "wo")
    return _small(T5ForConditionalGeneration, *targets, config=config)


def two_adapters(*active: str, trained: tuple[str, ...] | None = None) -> PeftModel:
    """Adapters "default" and "second", of different ranks and scalings."""
    model = llama("q_proj", "down_proj")
    config = LoraConfig(
        r=2, lora_alpha=7, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    model.add_adapter("second", config)
    model.base_model.set_adapter(list(active))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(any(f".{a}." in name for a in trained or active))
    return model.double()


def half_frozen(part: str) -> PeftModel:
    model = llama()
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.requires_grad_(False)
    return model


def patterns() -> PeftModel:
    return llama(
        rank_pattern={"q_proj": 1, "layers.1.mlp.up_proj": 7},
        alpha_pattern={"q_proj": 9, "down_proj": 2},
    )


MODELS: dict[str, Callable[[], PeftModel]] = {
    "llama": llama,
    "gpt2: transposed layers": gpt2,
    "gemma: soft caps": gemma,
    "qwen: rank-stabilised": qwen,
    "opt: flattened tokens": opt,
    "t5: encoder and decoder": t5,
    "two active adapters": lambda: two_adapters("default", "second"),
    "one active adapter, one idle": lambda: two_adapters("second"),
    "one trained adapter, one frozen": lambda: two_adapters(
        "default", "second", trained=("default",)
    ),
    "ranks and scalings by layer": patterns,
    "some layers": lambda: llama("q_proj", "gate_proj", layers_to_transform=[1]),
    "A frozen": lambda: half_frozen("lora_A"),
    "B frozen": lambda: half_frozen("lora_B"),
    "B with a bias": lambda: llama(lora_bias=True),
    "tied head": lambda: llama("q_proj", "lm_head", config={"tie_word_embeddings": True}),
    "checkpointing": lambda: checkpointed(use_reentrant=False),
    "reentrant checkpointing": lambda: checkpointed(use_reentrant=True),
    "rank above the width": lambda: toy(r=12),
    "shared layer": lambda: toy(Shared),
    "shared layer, checkpointing": lambda: toy(SharedCheckpointed),
    "two lengths": lambda: toy(TwoLengths),
    "unused layer": lambda: toy(Unused),
    "flat layer": lambda: toy(Flat),
    "pooled layer": lambda: toy(Pooled),
    "images": lambda: toy(Images),
    "no contiguous inputs": lambda: toy(Slices),
    "detached input, output changed in place": lambda: toy(Frozen),
}
