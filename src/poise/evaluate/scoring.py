"""What a completion answers, and what that is worth: the rewards of training, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..data.reasoning_gym import final_answer, reasoning_gym_reward
from ..isomers.answers import logical_answer
from ..isomers.meanings import rewritten_answer
from ..rewards import extract_answer
from ..rows import text_of

Row = Mapping[str, Any]


class Scored(NamedTuple):
    """The answer that was found, or None, and its reward in [0, 1]."""

    answer: str | None
    reward: float


Score = Callable[[Row, str], Scored]


def score_multiple_choice(row: Row, text: str) -> Scored:
    """1 for the right letter, or the right option's text."""
    found = extract_answer(text, row.get("options"))
    return Scored(found, float(found == row["answer"]))


def score_reasoning_gym(row: Row, text: str) -> Scored:
    """What the task's own scorer gives, which may be a part."""
    columns = {name: [row[name]] for name in ("task", "task_seed", "task_index", "task_settings")}
    return Scored(final_answer(text) or None, reasoning_gym_reward([text], **columns)[0])


def score_isomer(row: Row, text: str) -> Scored:
    """1 for the right logical answer, in the words of the problem's domain: one of the row's
    options, or in a problem that a teacher rewrote what it means to the problem."""
    if row.get("meanings"):
        found = logical_answer(text, row["options"], row["meanings"])
    else:
        found = rewritten_answer(text, text_of(row["prompt"]), row["answer"], row["answer_text"])
    return Scored(found, float(found == row["answer"]))


def scorer_of(rows: Sequence[Row], name: str = "dataset") -> Score:
    """How the completions of these questions are scored.

    Raises:
        ValueError: A row has neither a right answer nor a task that knows it; an isomer's right
            answer is none of its options' meanings, or has no words.
    """
    if all("task_index" in row for row in rows):
        return score_reasoning_gym
    # Isomers that a teacher rewrote have their answer in words and in logical terms.
    rewritten = ("isomer_id", "answer_text", "answer")
    are_isomers = all(row.get("meanings") or all(map(row.get, rewritten)) for row in rows)
    for index, row in enumerate(rows):
        answer, expected = row.get("answer"), None
        if are_isomers:
            if row.get("meanings") and answer not in row["meanings"]:
                meanings = ", ".join(map(str, row["meanings"]))
                expected = f"an answer among the meanings of its options, {meanings}"
        elif not answer:
            expected = "the right letter in a column 'answer'"
        elif row.get("isomer_id") and not re.fullmatch("[A-Z]", str(answer)):
            expected = (
                "an isomer's right letter, or beside its answer in logical terms either 'options' "
                "and 'meanings' or 'answer_text'"
            )
        if expected:
            raise ValueError(f"{name}, row {index}: expected {expected}; found {answer!r}")
    return score_isomer if are_isomers else score_multiple_choice
