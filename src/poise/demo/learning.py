"""A run of `IGATrainer` on isomer sets whose answers are one token, measured along the way."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from ..evaluate.isomers import centered, set_distance
from ..evaluate.represent import default_layer
from ..iga.config import IGAConfig
from .ranking import OUT_OF_DISTRIBUTION, Row

_BATCH = 256  # rows that are read at once


def learn(
    model: str,
    rows: Sequence[Row],
    curve: AnswerCurve,
    make_arguments: Callable[[str], IGAConfig],
    lora_rank: int,
    prepare: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """Train a model (its folder) on isomer sets by LoRA on all linear layers.

    Args:
        make_arguments: makes `IGAConfig` of the output folder.
        lora_rank: of the factors; alpha is twice that.
        prepare: what to do with the trainer before it trains.

    Returns:
        The curve's figures, `train_loss`, and `reliance`: accuracy with the cue minus that with the
        cue reversed.
    """
    from peft import LoraConfig

    from ..iga.trainer import IGATrainer

    hide_bars()
    with tempfile.TemporaryDirectory() as folder:
        trainer = IGATrainer(
            model=model,
            args=make_arguments(folder),
            train_dataset=datasets.Dataset.from_list(list(rows)),
            peft_config=LoraConfig(
                r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"
            ),
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


def hide_bars() -> None:
    """No progress bars of loading a model and preparing rows, in this process."""
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def quieten(trainer: Any) -> None:
    """Takes the printing of each logged step off a trainer; its history keeps them."""
    trainer.remove_callback(PrinterCallback)


class AnswerCurve(TrainerCallback):  # type: ignore[misc]
    """Accuracy and Logical Consistency Score of every test, at equal intervals.

    Args:
        tests: rows of isomer sets by test.
        every: optimizer steps between two measurements.
        out_of_distribution: names of the tests that are.
    """

    def __init__(
        self,
        tests: Mapping[str, Sequence[Row]],
        every: int,
        out_of_distribution: Sequence[str] = OUT_OF_DISTRIBUTION,
    ) -> None:
        self._tests, self._every = tests, every
        self._out_of_distribution = out_of_distribution
        self.curve: list[dict[str, float]] = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every:
            return
        model, point = kwargs["model"], {"step": state.global_step}
        was_training = model.training
        model.eval()
        for test, rows in self._tests.items():
            measured = _measure(model, kwargs["processing_class"], rows)
            point |= {f"{test}/{name}": value for name, value in measured.items()}
        model.train(was_training)
        for name in measured:
            values = [point[f"{test}/{name}"] for test in self._out_of_distribution]
            point[f"out_of_distribution/{name}"] = statistics.fmean(values)
        self.curve.append(point)

    def figures(self) -> dict[str, Any]:
        """The last measurement; the accuracy out of distribution at those before; the curve."""
        name = "out_of_distribution/accuracy"
        before = {f"{name} at {int(p['step'])}": p[name] for p in self.curve[:-1]}
        return {**self.curve[-1], **before, "curve": self.curve}


def _measure(model: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, float]:
    """Accuracy (0 to 1), that of the worst domain, and score. Rows with `options` are answered by
    the likeliest of these, others by any token."""
    by_domain: dict[str, list[bool]] = {}
    by_set: dict[str, list[Any]] = {}
    parts = []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        prompts = [row["prompt"] for row in batch]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
        outputs = model(
            input_ids=inputs["input_ids"].to(model.device),
            attention_mask=inputs["attention_mask"].to(model.device),
            output_hidden_states=True,
            logits_to_keep=1,
        )
        # Where each prompt's answer is decided.
        states = outputs.hidden_states[default_layer(model)][:, -1]
        parts.append(states.double().cpu().numpy())
        for row, values in zip(batch, outputs.logits[:, -1], strict=True):
            answer, *options = (
                tokenizer(text, add_special_tokens=False)["input_ids"][0]
                for text in (row["completion"], *row.get("options", []))
            )
            chosen = max(options, key=lambda o: float(values[o])) if options else values.argmax()
            by_domain.setdefault(row["domain"], []).append(int(chosen) == answer)
    for row, vector in zip(rows, centered(np.concatenate(parts)), strict=True):
        by_set.setdefault(row["isomer_id"], []).append(vector)
    distances = [set_distance(np.stack(one)) for one in by_set.values() if len(one) > 1]
    return {
        "accuracy": statistics.fmean(right for one in by_domain.values() for right in one),
        "worst_domain": min(map(statistics.fmean, by_domain.values())),
        "score": statistics.fmean(distances),
    }
