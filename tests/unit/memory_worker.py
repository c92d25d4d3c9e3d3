"""Real bytes of a run's tensors, to compare counts with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from poise import PGPOConfig, PGPOTrainer
from tests import engines
from tests.tiny import RUN, save_tiny_model, tiny_dataset, vowel_reward

LORA: dict[str, Any] = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
# TRL's own loss and teacher, which run under FSDP2 as they are.
PLAIN: dict[str, Any] = {
    "multiplier": "none",
    "tiled_loss": False,
    "exact_resume": False,
    "teacher_from_student": False,
    "teacher_model_kind": "live",
}


def local_bytes(tensors: Any) -> int:
    """Bytes of tensors on this rank, of shared ones once."""
    unique: dict[int, Tensor] = {}
    for tensor in tensors:
        own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        unique[id(tensor)] = own
    return sum(own.numel() * own.element_size() for own in unique.values())


class Seen(TrainerCallback):  # type: ignore[misc]
    """Gradients as they are before the optimizer's first step."""

    gradients = 0

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any
    ) -> None:
        self.gradients = local_bytes(p.grad for p in model.parameters() if p.grad is not None)


def run(folder: Path, settings: dict[str, Any], lora: bool, dtype: str, shape: Any) -> Any:
    """A trainer after one step, and what its callback saw."""
    seen = Seen()
    trainer = PGPOTrainer(
        model=save_tiny_model(folder / "model", dtype=getattr(torch, dtype), **shape),
        reward_funcs=vowel_reward,
        args=PGPOConfig(
            output_dir=str(folder / "run"),
            max_steps=1,
            **RUN | {"optim": "adamw_torch", "model_init_kwargs": {"dtype": dtype}} | settings,
        ),
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(**LORA) if lora else None,
        callbacks=[seen],
    )
    trainer.train()
    return trainer, seen


def measured(trainer: Any, seen: Seen) -> dict[str, int]:
    """Bytes of this rank by what they are."""
    model, optimizer = trainer.model, trainer.optimizer
    states = getattr(optimizer, "optimizer", optimizer).state.values()
    return {
        "weights": local_bytes([*model.parameters(), *model.buffers()]),
        "gradients": seen.gradients,
        "moments": local_bytes(
            v for state in states for v in state.values() if isinstance(v, Tensor)
        ),
    }


def under_fsdp(folder: Path, lora: bool, shape: dict[str, Any]) -> None:
    """A rank of FSDP2; each writes what it has."""
    import os

    engines.use_fsdp()
    rank = os.environ["RANK"]
    trainer, seen = run(folder / rank, PLAIN | engines.fsdp_settings(), lora, "float32", shape)
    assert engines.is_sharded(trainer.model_wrapped)
    (folder / f"{rank}.json").write_text(json.dumps(measured(trainer, seen)))
