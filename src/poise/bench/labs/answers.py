"""Answers of one token, and the vectors they are decided on, during a run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from ...evaluation.consistency import centered, set_distance
from ...evaluation.representations import default_layer
from .ranking import OUT_OF_DISTRIBUTION, Row


class AnswerCurve(TrainerCallback):  # type: ignore[misc]
    """Accuracy and Logical Consistency Score of every test, every so many steps.

    Args:
        tests: rows of isomer sets by test.
        every: optimizer steps between two measurements.
    """

    def __init__(self, tests: Mapping[str, Sequence[Row]], every: int) -> None:
        self._tests, self._every = tests, every
        self.curve: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0:
            found = measure(kwargs["model"], kwargs["processing_class"], self._tests)
            self.curve.append({"step": state.global_step, **found})

    def figures(self) -> dict[str, Any]:
        """The last measurement; the accuracy out of distribution at those before; the curve."""
        name = "out_of_distribution/accuracy"
        before = {f"{name} at {int(p['step'])}": p[name] for p in self.curve[:-1]}
        return {**self.curve[-1], **before, "curve": self.curve}


@torch.no_grad()
def measure(model: Any, tokenizer: Any, tests: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Accuracy (0 to 1), worst domain and score by test, and their means out of distribution."""
    was_training = model.training
    model.eval()
    found: dict[str, float] = {}
    for test, rows in tests.items():
        for name, value in _measure_test(model, tokenizer, rows).items():
            found[f"{test}/{name}"] = value
    model.train(was_training)
    for name in ("accuracy", "worst_domain", "score"):
        values = [found[f"{test}/{name}"] for test in OUT_OF_DISTRIBUTION]
        found[f"out_of_distribution/{name}"] = statistics.fmean(values)
    return found


def _measure_test(model: Any, tokenizer: Any, rows: Sequence[Row]) -> dict[str, float]:
    inputs = tokenizer([row["prompt"] for row in rows], return_tensors="pt", padding=True)
    outputs = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        output_hidden_states=True,
    )
    chosen = outputs.logits[:, -1].argmax(-1)
    right = [
        tokenizer.convert_ids_to_tokens(int(token)) == row["completion"].strip()
        for token, row in zip(chosen, rows, strict=True)
    ]
    states = outputs.hidden_states
    vectors = states[default_layer(model)][:, -1].double().numpy()
    by_domain: dict[str, list[bool]] = {}
    for row, is_right in zip(rows, right, strict=True):
        by_domain.setdefault(row["domain"], []).append(is_right)
    return {
        "accuracy": statistics.fmean(right),
        "worst_domain": min(map(statistics.fmean, by_domain.values())),
        "score": _score(rows, centered(vectors)),
    }


def _score(rows: Sequence[Row], vectors: Any) -> float:
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["isomer_id"], []).append(place)
    distances = [set_distance(vectors[np.array(p)]) for p in places.values() if len(p) > 1]
    return statistics.fmean(distances)
