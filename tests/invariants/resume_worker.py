"""A training run in a process of its own, to be killed."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file

from poise.training import PGPOConfig, PGPOTrainer
from tests.tiny import tiny_dataset, vowel_reward


def run(model: str, output_dir: str, settings: dict[str, Any], lora: bool, resume: Any) -> None:
    """Trains, and writes the final weights to `<output_dir>/final.safetensors`."""
    torch.set_num_threads(1)
    config = PGPOConfig(
        output_dir=output_dir,
        per_device_train_batch_size=8,
        num_generations=4,
        max_prompt_length=32,
        max_completion_length=6,
        max_steps=15,
        save_steps=2,
        save_total_limit=3,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
        diagnostics_warning_interval=0,
        distillation_mode="full_logits",
        signal_reference="running",
        rho_min=0.1,
        **settings,
    )
    trainer = PGPOTrainer(
        model=model,
        reward_funcs=vowel_reward,
        args=config,
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
    )
    trainer.train(resume_from_checkpoint=resume)
    weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    save_file(weights, f"{output_dir}/final.safetensors")
