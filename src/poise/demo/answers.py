"""Answers of one token, and the vectors they are decided on, during a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ..evaluate.ask import default_layer
from ..evaluate.isomers import centered, set_distance
from .ranking import OUT_OF_DISTRIBUTION, Row

BATCH = 256  # rows that are read at once


class AnswerCurve(TrainerCallback):  # type: ignore[misc]
    """Accuracy and Logical Consistency Score of every test, every so many steps.

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

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0:
            model, tokenizer = kwargs["model"], kwargs["processing_class"]
            found = measure(model, tokenizer, self._tests, self._out_of_distribution)
            self.curve.append({"step": state.global_step, **found})

    def figures(self) -> dict[str, Any]:
        """The last measurement; the accuracy out of distribution at those before; the curve."""
        name = "out_of_distribution/accuracy"
        before = {f"{name} at {int(p['step'])}": p[name] for p in self.curve[:-1]}
        return {**self.curve[-1], **before, "curve": self.curve}


@torch.no_grad()
def measure(
    model: Any,
    tokenizer: Any,
    tests: Mapping[str, Sequence[Row]],
    out_of_distribution: Sequence[str] = OUT_OF_DISTRIBUTION,
) -> dict[str, float]:
    """Accuracy (0 to 1), worst domain and score by test, and their means out of distribution."""
    was_training = model.training
    model.eval()
    found: dict[str, float] = {}
    for test, rows in tests.items():
        for name, value in _measure_test(model, tokenizer, rows).items():
            found[f"{test}/{name}"] = value
    model.train(was_training)
    for name in ("accuracy", "worst_domain", "score"):
        values = [found[f"{test}/{name}"] for test in out_of_distribution]
        found[f"out_of_distribution/{name}"] = statistics.fmean(values)
    return found


def _measure_test(model: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, float]:
    """Rows with `options` are answered by the likeliest of these, others by any token."""
    right: list[bool] = []
    parts = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        logits, vectors = _read(model, tokenizer, [row["prompt"] for row in batch])
        parts.append(vectors)
        for row, values in zip(batch, logits, strict=True):
            answer, *options = _tokens(tokenizer, [row["completion"], *row.get("options", [])])
            chosen = max(options, key=lambda o: float(values[o])) if options else values.argmax()
            right.append(int(chosen) == answer)
    by_domain: dict[str, list[bool]] = {}
    for row, is_right in zip(rows, right, strict=True):
        by_domain.setdefault(row["domain"], []).append(is_right)
    return {
        "accuracy": statistics.fmean(right),
        "worst_domain": min(map(statistics.fmean, by_domain.values())),
        "score": _score(rows, centered(np.concatenate(parts))),
    }


def _read(model: Any, tokenizer: Any, prompts: list[str]) -> tuple[torch.Tensor, Any]:
    """Logits and hidden states where each prompt's answer is decided."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    outputs = model(
        input_ids=inputs["input_ids"].to(model.device),
        attention_mask=inputs["attention_mask"].to(model.device),
        output_hidden_states=True,
        logits_to_keep=1,
    )
    states = outputs.hidden_states[default_layer(model)][:, -1]
    return outputs.logits[:, -1], states.double().cpu().numpy()


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """The first token of each."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts]


def _score(rows: Sequence[Row], vectors: Any) -> float:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["isomer_id"], []).append(place)
    distances = [set_distance(vectors[np.array(p)]) for p in places.values() if len(p) > 1]
    return statistics.fmean(distances)
