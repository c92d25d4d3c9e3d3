"""PGPO with rollouts by vLLM, in a process of its own. Arguments: full or lora, and a folder."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

# The engine in this process, so that weights can be handed over; a small cache; one thread.
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}

import torch
from peft import LoraConfig
from trl.generation import vllm_generation
from vllm import SamplingParams
from vllm.model_executor.layers import utils as layers

from poise import PGPOConfig, PGPOTrainer
from tests.tiny import RUN, save_tiny_model, tiny_dataset, vowel_reward

# vLLM's attention takes no head narrower than 32 on the CPU.
SHAPE = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
SETTINGS = RUN | {
    "max_steps": 3,
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_max_model_length": 64,
    "multiplier": "none",  # whole steps, that greedy tokens change within three
    "teacher_model_kind": "ema",
}
LORA = {"r": 4, "target_modules": "all-linear"}
NEW_TOKENS = 16


def keep_weights_as_they_are() -> None:
    """Plain products: on the CPU vLLM packs weights at loading, after which none can be handed
    over. On a GPU it does not."""

    def dispatch(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = dispatch


def vllms_tokens(trainer: Any, prompts: list[list[int]]) -> list[list[int]]:
    """vLLM's greedy continuations."""
    greedy = SamplingParams(temperature=0.0, max_tokens=NEW_TOKENS)
    inputs = [{"prompt_token_ids": ids} for ids in prompts]
    outputs = trainer.vllm_generation.llm.generate(inputs, greedy, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


@torch.no_grad()
def students_tokens(trainer: Any, prompts: list[list[int]]) -> list[list[int]]:
    """The student's greedy continuations, the end token included."""
    found = []
    for ids in prompts:
        row = torch.tensor([ids], device=trainer.model.device)
        done = trainer.model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
        )
        found.append(done[0, len(ids) :].tolist())
    return found


def main(kind: str, folder: Path) -> None:
    """Trains three steps; writes the tokens of both before and after, and of vLLM's last sync."""
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        keep_weights_as_they_are()
    eager = partial(vllm_generation.LLM, enforce_eager=True, dtype="float32")
    vllm_generation.LLM = eager
    data = tiny_dataset()
    trainer = PGPOTrainer(
        model=save_tiny_model(folder / "model", **SHAPE),
        reward_funcs=vowel_reward,
        args=PGPOConfig(output_dir=str(folder / "run"), **SETTINGS),
        train_dataset=data,
        peft_config=LoraConfig(**LORA) if kind == "lora" else None,
    )
    prompts = trainer.processing_class(list(data["prompt"]))["input_ids"]
    result: dict[str, Any] = {"before": students_tokens(trainer, prompts)}
    trainer.train()
    apart = [log.get("pgpo/sampler_log_ratio") for log in trainer.state.log_history]
    result["apart"] = [value for value in apart if value is not None]
    trainer.vllm_generation.sync_weights()
    result["student"] = students_tokens(trainer, prompts)
    result["vllm"] = vllms_tokens(trainer, prompts)
    (folder / "tokens.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
