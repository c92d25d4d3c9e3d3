"""A training run in a process of its own, to be killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from transformers import TrainerCallback

from poise import PGPOConfig, PGPOTrainer
from tests.tiny import BRAKE, RUN, in_four_bits, tiny_dataset, vowel_reward


class _Hold(TrainerCallback):
    """Goes no further than a step: who is to kill the run always comes in time."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        while state.global_step >= self._step:
            time.sleep(1)


def run(
    model: str,
    output_dir: Path,
    settings: dict[str, Any],
    lora: bool,
    resume: Any,
    hold_after: int | None = None,
) -> None:
    """Trains 15 steps, and writes the final weights to `<output_dir>/final.safetensors`.

    With `hold_after`, it trains that many steps and waits to be killed.
    """
    own = {
        "output_dir": str(output_dir),
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
        args=PGPOConfig(**RUN | BRAKE | own | in_four_bits(settings)),
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        callbacks=None if hold_after is None else [_Hold(hold_after)],
    )
    trainer.train(resume_from_checkpoint=resume)
    weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    save_file(weights, output_dir / "final.safetensors")
