"""PGPO under DeepSpeed's ZeRO: two ranks are one plain rank."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from poise import PGPOConfig, PGPOTrainer
from tests.engines import deepspeed_settings, use_deepspeed
from tests.invariants.test_two_ranks import by_place
from tests.processes import finish, run_ranks
from tests.tiny import BRAKE, RUN, tiny_dataset

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")

BATCH = 12
GREEDY = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}


def train(ranks: int, model: str, folder: Path, settings: dict[str, Any], stage: int | None) -> None:
    lora = settings.pop("lora", False)
    config = settings.pop("ds", {})
    own = {
        "output_dir": str(folder),
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "per_device_train_batch_size": BATCH // ranks // settings.get("gradient_accumulation_steps", 1),
        "max_steps": 4,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.5,
        "sensitivity": 3.0,
        "generation_kwargs": GREEDY,
        "random_demonstration": False,
    }
    if stage is not None:
        use_deepspeed()
        own |= deepspeed_settings(stage, **config)
    trainer = PGPOTrainer(
        model=model,
        reward_funcs=by_place,
        args=PGPOConfig(**RUN | BRAKE | own | settings),
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0)
        if lora
        else None,
    )
    trainer.train()
    gathered: Any = nullcontext()
    if stage == 3:
        import deepspeed

        gathered = deepspeed.zero.GatheredParameters(list(trainer.model.parameters()))
    with gathered:
        weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    if trainer.is_world_process_zero():
        save_file(weights, folder / "weights.safetensors")
