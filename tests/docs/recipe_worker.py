"""Starts what a recipe says, as far as a CPU goes; runs in a rank."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from poise import PGPOConfig, PGPOTrainer
from tests import engines
from tests.tiny import RUN, tiny_dataset, vowel_reward


def start(
    environment: dict[str, str],
    model: str,
    folder: Path,
    resume: Any = None,
    settings: dict[str, Any] | None = None,
) -> None:
    """One step on a tiny model in the environment that the launcher makes; writes what ran."""
    os.environ |= environment
    if environment.get("ACCELERATE_USE_FSDP") == "true":
        engines.use_fsdp()
    if environment.get("ACCELERATE_USE_DEEPSPEED") == "true":
        engines.use_deepspeed()
    trainer = PGPOTrainer(
        model=model,
        reward_funcs=vowel_reward,
        args=PGPOConfig(
            **RUN | {"output_dir": str(folder / "run"), "max_steps": 1} | (settings or {})
        ),
        train_dataset=tiny_dataset(),
    )
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(str(folder / "last"))
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    names = ("fsdp_version", "reshard_after_forward", "cpu_ram_efficient_loading")
    found = {
        "type": str(trainer.accelerator.distributed_type.value),
        "processes": trainer.accelerator.num_processes,
        "precision": trainer.accelerator.mixed_precision,
        "is_sharded": engines.is_sharded(trainer.model_wrapped),
        "weights": sorted({str(p.dtype) for p in trainer.model.parameters()}),
        "plugin": {name: getattr(plugin, name) for name in names} if plugin else None,
        "is_finite": all(bool(torch.isfinite(p).all()) for p in _local(trainer.model)),
    }
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))


def _local(model: Any) -> list[torch.Tensor]:
    return [p.to_local() if hasattr(p, "to_local") else p for p in model.parameters()]
