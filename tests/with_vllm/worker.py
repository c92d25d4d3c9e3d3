"""PGPO with rollouts by vLLM, in a process of its own.

Arguments: full, lora or embedded (its LoRA), or server, and a folder.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from poise.data import load_questions
from poise.models import resolve_model
from poise.rewards import multiple_choice_reward
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
EMBEDDED = {
    "max_steps": 2,
    "vllm_max_model_length": 320,
    "max_prompt_length": 256,
    "max_completion_length": 12,
    "num_generations": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
}
NEW_TOKENS = 16
SERVER = "--dtype float32 --enforce-eager --max-model-len 64 --logprobs-mode processed_logprobs"


def keep_weights_as_they_are() -> None:
    """Plain products: on the CPU vLLM packs weights at loading, after which none can be handed
    over. On a GPU it does not."""

    def dispatch(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = dispatch


@contextmanager
def served(model: str, log: Path) -> Iterator[int]:
    """The port of a vLLM server with this model, in a process of its own.

    It takes weights on GPUs alone: on the CPU it keeps those that it has loaded.
    """
    vllm_generation.VLLMClient.init_communicator = lambda client, device: None
    vllm_generation.VLLMGeneration.sync_weights = lambda generation: None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += [*SERVER.split(), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as text, subprocess.Popen(command, stdout=text, stderr=text) as process:
        try:
            yield port
        finally:
            process.terminate()


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


def make_trainer(kind: str, folder: Path, **settings: Any) -> PGPOTrainer:
    """Of the model in `folder/model`, or of the embedded one."""
    is_embedded = kind == "embedded"
    settings = SETTINGS | (EMBEDDED if is_embedded else {}) | settings
    return PGPOTrainer(
        model=resolve_model("default") if is_embedded else str(folder / "model"),
        reward_funcs=multiple_choice_reward if is_embedded else vowel_reward,
        args=PGPOConfig(output_dir=str(folder / "run"), **settings),
        train_dataset=load_questions("facts").select(range(8)) if is_embedded else tiny_dataset(),
        peft_config=None if kind == "full" else LoraConfig(**LORA),
    )


def prompts_of(trainer: PGPOTrainer) -> list[list[int]]:
    """The prompts' tokens, as rollouts have them."""
    write, prompts = trainer.processing_class, list(trainer.train_dataset["prompt"])
    if not isinstance(prompts[0], str):
        prompts = write.apply_chat_template(prompts, add_generation_prompt=True, tokenize=False)
    return [list(ids) for ids in write(prompts)["input_ids"]]


def train(trainer: PGPOTrainer) -> list[float]:
    """Trains; how far vLLM's log-probabilities were from the policy's in each."""
    trainer.train()
    apart = [log.get("pgpo/sampler_log_ratio") for log in trainer.state.log_history]
    return [value for value in apart if value is not None]


def with_server(folder: Path) -> dict[str, Any]:
    """Steps that do not move, so that the server has the policy without a hand-over."""
    with served(str(folder / "model"), folder / "server.log") as port:
        settings = {"vllm_mode": "server", "vllm_server_port": port, "learning_rate": 0.0}
        return {"apart": train(make_trainer("full", folder, **settings))}


def in_this_process(kind: str, folder: Path) -> dict[str, Any]:
    """The student's greedy tokens before and after, and vLLM's after a last hand-over."""
    if not torch.cuda.is_available():
        keep_weights_as_they_are()
    eager = partial(vllm_generation.LLM, enforce_eager=True, dtype="float32")
    vllm_generation.LLM = eager
    trainer = make_trainer(kind, folder)
    prompts = prompts_of(trainer)
    result: dict[str, Any] = {"before": students_tokens(trainer, prompts)}
    result["apart"] = train(trainer)
    trainer.vllm_generation.sync_weights()
    result["student"] = students_tokens(trainer, prompts)
    result["vllm"] = vllms_tokens(trainer, prompts)
    return result


def main(kind: str, folder: Path) -> None:
    """Writes what was found into `folder/found.json`."""
    torch.set_num_threads(1)
    save_tiny_model(folder / "model", **SHAPE)
    found = with_server(folder) if kind == "server" else in_this_process(kind, folder)
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
