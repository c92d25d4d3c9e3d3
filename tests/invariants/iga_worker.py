"""A training run in a process of its own, to be killed, or to be one of several ranks."""

from __future__ import annotations

import os
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from transformers import TrainerCallback

from poise import IGAConfig, IGATrainer
from tests.engines import fsdp_settings, is_sharded, use_fsdp, whole_weights
from tests.exact import in_float64
from tests.tiny import EXACT, iga_run, in_four_bits, tiny_isomers


def make_trainer(model: str, folder: str, **settings: Any) -> IGATrainer:
    """A trainer of the tiny model on tiny isomers.

    Args:
        settings: `IGAConfig`'s; `four_bits`, of the base; `lora_dropout` and `lora`, of the adapter
            (None for none); `dies_at`, the step at whose beginning the process ends.
    """
    dropout, lora = settings.pop("lora_dropout", 0.1), settings.pop("lora", {})
    last = settings.pop("dies_at", None)
    every = {"r": 2, "target_modules": "all-linear", "lora_dropout": dropout}
    return IGATrainer(
        model=model,
        args=IGAConfig(output_dir=folder, **iga_run(in_four_bits(settings))),
        train_dataset=tiny_isomers(),
        peft_config=None if lora is None else LoraConfig(**every | lora),
        callbacks=[] if last is None else [_Die(last)],
    )


class _Die(TrainerCallback):
    """Ends the process in the middle of a run, as a machine that fails does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._step:
            os._exit(0)


def run(model: str, folder: str, settings: dict[str, Any], resume: Any = None) -> None:
    """Trains, and writes the final weights to `<folder>/final.safetensors`."""
    trainer = make_trainer(model, folder, **settings)
    trainer.train(resume_from_checkpoint=resume)
    assert is_sharded(trainer.model) == trainer.is_fsdp_enabled
    weights = whole_weights(trainer.model)
    if trainer.is_world_process_zero():
        save_file(weights, f"{folder}/final.safetensors")


def run_exactly(model: str, folder: str, settings: dict[str, Any]) -> None:
    """`run` in float64, of a model that is."""
    with in_float64():
        run(model, folder, EXACT | settings)


def run_in_shards(
    model: str, folder: str, settings: dict[str, Any], config: dict[str, Any]
) -> None:
    """The same under FSDP2."""
    use_fsdp()
    run_exactly(model, folder, settings | fsdp_settings(**config))
