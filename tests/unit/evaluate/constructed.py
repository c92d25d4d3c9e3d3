"""Records made by hand, so that every number in a test is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poise.evaluate.records import Header, QuestionRecord


def question(
    id: str, extracted: Sequence[str | None], answer: str = "A", **overrides: Any
) -> QuestionRecord:
    """A question whose samples gave these answers."""
    k = len(extracted)
    settings: dict[str, Any] = {
        "domain": "physics",
        "level": 1,
        "prompt": f"Which force is larger? ({id})",
        "completions": tuple(f"I say {x}." for x in extracted),
        "rewards": tuple(float(x == answer) for x in extracted),
        "lengths": tuple(range(5, 5 + k)),
        "finished": (True,) * k,
    }
    return QuestionRecord(id=id, answer=answer, extracted=tuple(extracted), **settings | overrides)


def header(**overrides: Any) -> Header:
    """A header with settings as the command writes them."""
    settings: dict[str, Any] = {
        "model": "some/model",
        "dataset": "science",
        "split": "test",
        "sampling": {"k": 4, "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 32},
        "seed": 7,
        "versions": {"poise": "0.1.0"},
        "created": "2026-01-02T03:04:05+00:00",
    }
    return Header(**settings | overrides)
