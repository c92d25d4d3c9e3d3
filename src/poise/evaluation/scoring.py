"""What a completion answers, and what that is worth: the rewards of training, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..data.isomers.answers import logical_answer
from ..data.reasoning_gym import final_answer, reasoning_gym_reward
from ..data.rewards import extract_answer

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
    """1 for the right logical answer, told in the words of the problem's domain."""
    found = logical_answer(text, row["options"], row["meanings"])
    return Scored(found, float(found == row["answer"]))


def scorer_of(rows: Sequence[Row], name: str = "dataset") -> Score:
    """How the completions of these questions are scored.

    Raises:
        ValueError: a row has neither a right answer nor a task that knows it; an isomer's right
            answer is none of its options' meanings.
    """
    if all("task_index" in row for row in rows):
        return score_reasoning_gym
    if all("meanings" in row for row in rows):
        _check_isomers(rows, name)
        return score_isomer
    for index, row in enumerate(rows):
        if not row.get("answer"):
            raise ValueError(
                f"{name}, row {index}: expected the right letter in a column 'answer', found "
                f"{row.get('answer')!r}; questions without it cannot be evaluated"
            )
    return score_multiple_choice


def _check_isomers(rows: Sequence[Row], name: str) -> None:
    for index, row in enumerate(rows):
        if row.get("answer") not in row["meanings"]:
            raise ValueError(
                f"{name}, row {index}: expected an answer among the meanings of its options, "
                f"{', '.join(map(str, row['meanings']))}; found {row.get('answer')!r}"
            )
