"""Accuracy during a run, on questions that training never shows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback


def answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], new_tokens: int, sample: bool = False
) -> list[str]:
    """What a model answers, greedily or sampled from all tokens; it is left in eval mode."""
    inputs = tokenizer(list(prompts), return_tensors="pt")
    inputs.pop("token_type_ids", None)
    model.eval()
    ids = model.generate(
        **inputs.to(model.device),
        max_new_tokens=new_tokens,
        do_sample=sample,
        top_k=0 if sample else None,
    )
    written = ids[:, inputs["input_ids"].shape[1] :]
    return list(tokenizer.batch_decode(written, skip_special_tokens=True))


class AccuracyCurve(TrainerCallback):  # type: ignore[misc]
    """Greedy accuracy before training and every few steps.

    Args:
        questions: with `prompt` and `answer`.
        every: optimizer steps between two measurements.
        new_tokens: of an answer with its end.
    """

    def __init__(self, questions: Sequence[dict[str, str]], every: int, new_tokens: int) -> None:
        self._questions, self._every, self._new_tokens = questions, every, new_tokens
        self.values: list[float] = []
        self._has_diverged = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure(kwargs["model"], kwargs["processing_class"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0:
            self._measure(kwargs["model"], kwargs["processing_class"])

    def _measure(self, model: Any, tokenizer: Any) -> None:
        was_training, cache = model.training, model.config.use_cache
        prompts = [question["prompt"] for question in self._questions]
        texts = answers(model, tokenizer, prompts, self._new_tokens)
        model.train(was_training)
        model.config.use_cache = cache
        right = [
            text.split() == question["answer"].split()
            for text, question in zip(texts, self._questions, strict=True)
        ]
        self.values.append(statistics.fmean(right))

    def diverge(self, measurements: int) -> None:
        """The run has no numbers any more: it would answer nothing until its end."""
        self._has_diverged = True
        self.values += [0.0] * (1 + measurements - len(self.values))

    def figures(self) -> dict[str, Any]:
        """The curve and what a table shows of it; accuracies from 0 to 1."""
        after = self.values[1:]
        return {
            "accuracy": self.values,
            "before": self.values[0],
            "final": after[-1],
            "best": max(after),
            "area": statistics.fmean(after),
            "survived": float(after[-1] >= self.values[0]),
            "diverged": float(self._has_diverged),
        }
