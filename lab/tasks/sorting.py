"""A toy task for self-distillation: a tiny model that half knows how to sort six digits.

A prompt is six different digits, the completion the same in ascending order. The model has
learned from scratch to sort shorter lists and to copy a solution that comes before the question,
and then, until it is right in a quarter of all cases, to sort six: so as a student it is right now
and then, and as a teacher, shown the solution of a sibling, nearly always.
"""

from __future__ import annotations

import random
from typing import Any

from poise.demo.tiny_model import Batch, accuracy, encode, make_tokenizer, pretrained

LENGTH = 6
SOLUTION, QUESTION, SORTED = "S", "Q", "="
# How the teacher's prompt is put together, in the form that the model has learned to copy from.
TEMPLATES: dict[str, Any] = {
    "reprompt_template": "{solution}{feedback}{prompt}",
    "solution_template": SOLUTION + " {successful_previous_attempt} ",
    "feedback_template": "{feedback_raw}",
}
COPIES, READY = 0.98, 0.25  # shares of right answers at which a lesson is over
COPYING, SIX = 0.35, 0.02  # shares of rows; all others are shorter lists to sort
SHORT = LENGTH - 2
STEPS, ROWS = 1500, 96  # at most


def problem(rng: random.Random, length: int = LENGTH) -> tuple[str, str]:
    """A prompt and its completion."""
    digits = rng.sample("0123456789", length)
    return f"{QUESTION} {' '.join(digits)} {SORTED}", " ".join(sorted(digits))


def problems(count: int, seed: int, part: str) -> list[dict[str, str]]:
    """Different prompts with their answers; "test" has none in common with other parts. Of what the
    model comes with, some two rows in a hundred, it may have seen a few."""
    rng = random.Random(f"sorting {part} {seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        prompt, answer = problem(rng)
        if (sum(map(int, prompt.split()[1:4])) % 5 == 0) == (part == "test"):
            found[prompt] = answer
    return [{"prompt": p, "answer": a} for p, a in found.items()]


def reward(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """1 for the sorted list, else 0."""
    return [float(c.split() == a.split()) for c, a in zip(completions, answer, strict=True)]


def model_folder(seed: int) -> str:
    """The student's starting point, one a seed."""
    tokenizer = make_tokenizer([*"0123456789", SOLUTION, QUESTION, SORTED])
    lessons = _Lessons(tokenizer, seed)
    return pretrained(
        "sorting",
        tokenizer,
        lessons.draw,
        STEPS,
        seed,
        lessons.are_over,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
    )


class _Lessons:
    """What the model learns from scratch: short lists and copying; then also six digits."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self._tokenizer, self._rng = tokenizer, random.Random(f"sorting pretraining {seed}")
        self._copies = False
        questions = [(row["prompt"], row["answer"]) for row in problems(200, seed, "pretraining")]
        shown = [(f"{SOLUTION} {answer} {prompt}", answer) for prompt, answer in questions]
        self._sorting, self._copying = encode(tokenizer, questions), encode(tokenizer, shown)

    def draw(self, step: int) -> Batch:
        return encode(self._tokenizer, [self._row() for _ in range(ROWS)])

    def _row(self) -> tuple[str, str]:
        rng, kind = self._rng, self._rng.random()
        if kind < COPYING:
            # Any list may stand as the solution, so that copying is learned and not sorting.
            shown = " ".join(rng.sample("0123456789", LENGTH))
            return f"{SOLUTION} {shown} {problem(rng)[0]}", shown
        is_six = self._copies and kind > 1 - SIX
        return problem(rng, LENGTH if is_six else rng.randint(2, SHORT))

    def are_over(self, model: Any) -> bool:
        """Whether the model knows enough; moves on to the second lesson by itself."""
        if not self._copies:
            self._copies = accuracy(model, self._copying) >= COPIES
            return False
        return accuracy(model, self._sorting) >= READY
