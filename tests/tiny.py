"""A language model of a few thousand parameters, its tokenizer, and data for it."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

CHARACTERS = string.ascii_lowercase + string.digits + " :=?.\n"
# Settings of a trainer on the tiny model; what a test is about, it adds or replaces.
ANY_RUN: dict[str, Any] = {
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}
RUN = ANY_RUN | {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_prompt_length": 32,
    "max_completion_length": 6,
    "diagnostics_warning_interval": 0,
}
# A brake by the signal alone, and an EMA teacher; tests of distance control ask for that.
BRAKE: dict[str, Any] = {
    "multiplier": "information",
    "sensitivity": 6.0,
    "teacher_model_kind": "ema",
}
# SDPO's steps, in the place of that brake.
UNSCALED: dict[str, Any] = {"multiplier": "none", "sensitivity": 0.0}
IGA_RUN = ANY_RUN | {"per_device_train_batch_size": 12}  # four sets
# A model as it was saved. CUDA's fused AdamW counts its steps in float32, which `InFloat64` widens.
EXACT: dict[str, Any] = {"model_init_kwargs": {"dtype": "auto"}, "optim": "adamw_torch"}
OF_IGA = ("method", "method_options", "space", "update", "applied_to", "domains")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def iga_run(settings: dict[str, Any]) -> dict[str, Any]:
    """`IGA_RUN` with settings; IGA masks whole matrices, which has most to go wrong.

    Settings may have the names of `IGA`'s fields.
    """
    settings = {f"iga_{n}" if n in OF_IGA else n: value for n, value in settings.items()}
    space = {"iga_space": "weight"} if settings.get("iga_method", "iga") == "iga" else {}
    return IGA_RUN | space | settings


def in_four_bits(settings: dict[str, Any]) -> dict[str, Any]:
    """A trainer's settings; `four_bits` among them is what a base of 4 bits multiplies in."""
    settings = dict(settings)
    if compute := settings.pop("four_bits", None):
        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute)
        settings["model_init_kwargs"] = {"dtype": torch.float32, "quantization_config": bits}
    return settings


def tiny_tokenizer(*, chat: bool = True) -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(**overrides: Any) -> LlamaConfig:
    """Two layers, 32 wide."""
    settings: dict[str, Any] = {
        "vocab_size": len(CHARACTERS) + 3,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "initializer_range": 0.2,  # wide enough that predictions are not uniform
    }
    return LlamaConfig(**settings | overrides)


def save_tiny_model(
    folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> str:
    """Writes model and tokenizer as `from_pretrained` reads them; returns the path."""
    torch.manual_seed(seed)
    LlamaForCausalLM(tiny_config(**overrides)).to(dtype).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def save_adapter(base: str, folder: Path, seed: int = 0) -> Path:
    """An adapter for a model's folder, with arbitrary, large weights."""
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return folder


def tiny_dataset(rows: int = 12) -> Dataset:
    """Plain prompts with an answer, and a static hint."""
    return Dataset.from_list(
        [
            {
                "prompt": f"add {i} and {i % 7} =",
                "answer": str(i + i % 7),
                "privileged_context": f"the answer is {i + i % 7}",
            }
            for i in range(rows)
        ]
    )


def vowel_reward(completions: list[str], **columns: Any) -> list[float]:
    """Success is an early vowel: an untrained model meets it about half of the time."""
    return [float(any(c in "aeiou012" for c in text[:4])) for text in completions]


DOMAINS = ("law", "science", "sport")


def tiny_isomers(sets: int = 12, domains: tuple[str, ...] = DOMAINS) -> Dataset:
    """Isomer sets as rows; every fourth set lacks its last domain."""
    return Dataset.from_list(
        [
            {
                "isomer_id": f"set {i}",
                "domain": domain,
                "prompt": f"{domain} has {i} and {k + 2}.",
                "completion": f" so {i + k} then {(i * 7 + k) % 10}" + " again" * k,
            }
            for i in range(sets)
            for k, domain in enumerate(domains)
            if k + 1 < len(domains) or i % 4 != 3
        ]
    )
