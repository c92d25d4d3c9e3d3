"""Completions by vLLM, drawn as `ask.complete` draws them by transformers.

vLLM is imported in functions: it takes half a minute, and few have it.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from .ask import Completion, Sampling, completion_of, stop_tokens
from .load import ADAPTER, ADAPTER_WEIGHTS, Target

# What an adapter may not have beside its rank, scale and layers: vLLM passes over it, or refuses.
_ODD = (
    "bias",
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
)
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of which vLLM takes one as the largest


@dataclass(frozen=True)
class Engine:
    """A model that vLLM has loaded."""

    llm: Any  # vLLM's
    generation_config: Any  # of the model: its end tokens are read
    adapter: Any = None  # vLLM's request for it


def check_vllm(targets: Sequence[Target], device: str | None) -> None:
    """Refuses before anything is loaded.

    Raises:
        ModuleNotFoundError: vLLM is not installed.
        ValueError: a device, which vLLM chooses itself; an adapter of which it would use a part.
    """
    if find_spec("vllm") is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
    if device is not None:
        raise ValueError(
            f"device: expected none with use_vllm, which takes the device that it was built for, "
            f"found {device!r}"
        )
    for target in targets:
        if target.adapter is not None:
            _rank(Path(target.adapter))


def _rank(adapter: Path) -> int:
    """vLLM's largest rank for an adapter.

    Raises:
        ValueError: it is not plain LoRA on layers between embeddings and head.
    """
    settings = json.loads((adapter / ADAPTER).read_text(encoding="utf-8"))
    odd = [name for name in _ODD if settings.get(name) not in (None, False, "none", [], {})]
    with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as file:
        odd += [key for key in file.keys() if "embed" in key or "lm_head" in key]  # noqa: SIM118
    rank = settings.get("r", 0)
    if settings.get("peft_type") != "LORA" or odd or rank > _RANKS[-1]:
        found = odd[0] if odd else f"{settings.get('peft_type')} of rank {rank}"
        raise ValueError(
            f"adapter {adapter}: expected plain LoRA between embeddings and head, rank "
            f"{_RANKS[-1]} at most, found {found}; merge it, or leave --use_vllm out"
        )
    return next(known for known in _RANKS if known >= rank)


@contextmanager
def loaded(
    target: Target, dtype: torch.dtype, longest: int, generation_config: Any
) -> Iterator[Engine]:
    """The model in vLLM, which gives its memory back in the end.

    Choice: an adapter stays apart: merged into bfloat16 weights, small changes would be rounded
    away.

    Args:
        longest: most tokens of a prompt and its completion.
        generation_config: of the model, whose end tokens are read.
    """
    _give_back()  # what transformers had of it
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory
    from vllm.lora.request import LoRARequest
    from vllm.platforms import current_platform

    lora: dict[str, Any] = {}
    request = None
    if target.adapter is not None:
        lora = {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(Path(target.adapter))}
        request = LoRARequest("adapter", 1, target.adapter)
    llm = LLM(
        model=target.model,
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=longest,
        generation_config="vllm",  # what is not asked for shapes no sample
        # Compiling takes minutes on a CPU, and pays for long runs on GPUs alone.
        enforce_eager=current_platform.is_cpu(),
        **lora,
    )
    try:
        yield Engine(llm, generation_config, request)
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
        _give_back()


def _give_back() -> None:
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def complete(
    model: Engine,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    most_rows: int | None = None,
) -> list[list[Completion]]:
    """As `ask.complete`; vLLM chooses `most_rows`. Each prompt's seed is of torch's generator."""
    from vllm import SamplingParams

    ends = stop_tokens(model, tokenizer)
    seeds = torch.randint(2**31, (len(prompts),)).tolist()
    greedy = sampling.temperature == 0.0
    settings = [
        SamplingParams(
            n=sampling.k,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=None if greedy else seed,
            stop=list(sampling.stop),
            stop_token_ids=ends,
            detokenize=bool(sampling.stop),
        )
        for seed in seeds
    ]
    outputs = model.llm.generate(
        [{"prompt_token_ids": list(prompt)} for prompt in prompts],
        settings,
        use_tqdm=False,
        lora_request=model.adapter,
    )
    return [
        [completion_of(list(o.token_ids), tokenizer, ends, sampling) for o in found.outputs]
        for found in outputs
    ]
