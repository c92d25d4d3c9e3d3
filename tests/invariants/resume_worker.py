"""A training run in a process of its own, to be killed."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from poise.training import PGPOConfig, PGPOTrainer
from tests.tiny import RUN, tiny_dataset, vowel_reward


def run(model: str, output_dir: str, settings: dict[str, Any], lora: bool, resume: Any) -> None:
    """Trains, and writes the final weights to `<output_dir>/final.safetensors`."""
    torch.set_num_threads(1)
    own = {
        "output_dir": output_dir,
        "max_steps": 15,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 3,
        "distillation_mode": "full_logits",
        "signal_reference": "running",
        "rho_min": 0.1,
    }
    trainer = PGPOTrainer(
        model=model,
        reward_funcs=vowel_reward,
        args=PGPOConfig(**RUN | own | settings),
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
    )
    trainer.train(resume_from_checkpoint=resume)
    weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    save_file(weights, f"{output_dir}/final.safetensors")
