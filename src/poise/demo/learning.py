"""A run of `IGATrainer` on isomer sets, and what it has learned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from ..iga.config import IGAConfig
from .answers import AnswerCurve
from .quiet import hide_bars, quieten


def learn(
    model: str,
    rows: Sequence[dict[str, Any]],
    curve: AnswerCurve,
    make_arguments: Callable[[str], IGAConfig],
    lora_rank: int,
    prepare: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Train by LoRA on all linear layers.

    Args:
        model: folder of a model.
        rows: isomer sets to train on.
        curve: measures along the way.
        make_arguments: makes `IGAConfig` of the output folder.
        lora_rank: of the factors; alpha is twice that.
        prepare: what to do with the trainer before it trains.

    Returns:
        The curve's figures; `reliance`, accuracy with the cue minus that with the cue reversed; and
        `train_loss`.
    """
    from datasets import Dataset
    from peft import LoraConfig

    from ..iga.trainer import IGATrainer

    hide_bars()
    lora = LoraConfig(r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear")
    with tempfile.TemporaryDirectory() as folder:
        trainer = IGATrainer(
            model=model,
            args=make_arguments(folder),
            train_dataset=Dataset.from_list(list(rows)),
            peft_config=lora,
            callbacks=[curve],
        )
        quieten(trainer)
        if prepare is not None:
            prepare(trainer)
        trainer.train()
    figures = curve.figures()
    figures["reliance"] = figures["in_distribution/accuracy"] - figures["reversed/accuracy"]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return figures | {"train_loss": losses}
