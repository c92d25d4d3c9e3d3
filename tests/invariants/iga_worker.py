"""A training run in a process of its own, to be killed, or to be one of several ranks."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file

from poise import IGAConfig, IGATrainer
from tests.exact import in_float64
from tests.tiny import EXACT, iga_run, tiny_isomers


def make_trainer(model: str, folder: str, **settings: Any) -> IGATrainer:
    """A trainer of the tiny model on tiny isomers."""
    dropout = settings.pop("lora_dropout", 0.1)
    return IGATrainer(
        model=model,
        args=IGAConfig(output_dir=folder, **iga_run(settings)),
        train_dataset=tiny_isomers(),
        peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=dropout),
    )


def run(model: str, folder: str, settings: dict[str, Any], resume: Any = None) -> None:
    """Trains, and writes the final weights to `<folder>/final.safetensors`."""
    trainer = make_trainer(model, folder, **settings)
    trainer.train(resume_from_checkpoint=resume)
    if trainer.is_world_process_zero():
        weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        save_file(weights, f"{folder}/final.safetensors")


def run_exactly(model: str, folder: str, settings: dict[str, Any]) -> None:
    """`run` in float64, of a model that is."""
    with in_float64():
        run(model, folder, EXACT | settings)
