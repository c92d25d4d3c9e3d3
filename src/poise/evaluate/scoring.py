"""What a completion answers, and what that is worth: the rewards of training, one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ..data.reasoning_gym import final_answer, reasoning_gym_reward
from ..isomers.answers import logical_answer
from ..isomers.meanings import told_answer
from ..rewards import extract_answer

_LETTER = re.compile("[A-Z]")
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
    """1 for the right logical answer, told in the words of the problem's domain.

    Options are matched where the row lists them with their meanings; the answer to a problem that
    a teacher retold is read as what it means to the problem.
    """
    if row.get("meanings"):
        found = logical_answer(text, row["options"], row["meanings"])
    else:
        found = told_answer(text, _plain(row["prompt"]), row["answer"], row["answer_text"])
    return Scored(found, float(found == row["answer"]))


def _plain(prompt: Any) -> str:
    """A prompt as text, if need be from its chat messages."""
    return prompt if isinstance(prompt, str) else "\n".join(turn["content"] for turn in prompt)


def scorer_of(rows: Sequence[Row], name: str = "dataset") -> Score:
    """How the completions of these questions are scored.

    Raises:
        ValueError: a row has neither a right answer nor a task that knows it; an isomer's right
            answer is none of its options' meanings, or is told in no words.
    """
    if all("task_index" in row for row in rows):
        return score_reasoning_gym
    if all(row.get("meanings") or _is_retold(row) for row in rows):
        for index, row in enumerate(rows):
            _check_isomer(row, f"{name}, row {index}")
        return score_isomer
    for index, row in enumerate(rows):
        _check_letter(row, f"{name}, row {index}")
    return score_multiple_choice


def _is_retold(row: Row) -> bool:
    """Whether an isomer tells its answer in words and in logical terms, as built ones do."""
    return bool(row.get("isomer_id") and row.get("answer_text") and row.get("answer"))


def _check_isomer(row: Row, where: str) -> None:
    if row.get("meanings") and row.get("answer") not in row["meanings"]:
        raise ValueError(
            f"{where}: expected an answer among the meanings of its options, "
            f"{', '.join(map(str, row['meanings']))}; found {row.get('answer')!r}"
        )


def _check_letter(row: Row, where: str) -> None:
    answer = row.get("answer")
    if not answer:
        raise ValueError(
            f"{where}: expected the right letter in a column 'answer', found {answer!r}; "
            "questions without it cannot be evaluated"
        )
    if row.get("isomer_id") and not _LETTER.fullmatch(str(answer)):
        raise ValueError(
            f"{where}: expected an isomer's right letter, or beside its answer in logical terms "
            f"either 'options' and 'meanings' or 'answer_text'; found the answer {answer!r} alone"
        )
