"""Completions are scored as in training."""

from __future__ import annotations

from typing import Any

import pytest

from poise.evaluate import scoring
from poise.evaluate.scoring import (
    score_isomer,
    score_multiple_choice,
    score_reasoning_gym,
    scorer_of,
)
from poise.isomers.rows import isomer_tests
from poise.rewards import multiple_choice_reward


def test_a_multiple_choice_answer_is_its_letter() -> None:
    row = {"answer": "B"}
    said = {"<answer>B</answer>": "B", "Answer: C": "C", "no idea": None, "": None}
    for text, answer in said.items():
        reward = float(answer == "B")
        assert score_multiple_choice(row, text) == (answer, reward)
        assert multiple_choice_reward([text], ["B"]) == [reward]


def test_an_option_may_be_answered_by_its_text() -> None:
    row = {"answer": "B", "options": ["iron", "neon", "zinc", "tin"]}
    assert score_multiple_choice(row, " Neon.") == ("B", 1.0)
    assert score_multiple_choice(row, " tin") == ("D", 0.0)
    assert score_multiple_choice(row, " argon") == (None, 0.0)


def test_a_task_is_scored_by_its_own_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def reward(completions: list[str], **columns: Any) -> list[float]:
        seen.update(columns, completions=completions)
        return [0.25]

    monkeypatch.setattr(scoring, "reasoning_gym_reward", reward)
    row = {"task": "t", "task_seed": 1, "task_index": 2, "task_settings": "{}", "prompt": "p"}
    assert scorer_of([row]) is score_reasoning_gym
    assert score_reasoning_gym(row, "so <answer> 4 </answer>") == ("4", 0.25)
    assert score_reasoning_gym(row, "  ").answer is None
    assert seen["task_index"] == [2] and seen["task"] == ["t"]


def test_questions_without_an_answer_cannot_be_scored() -> None:
    assert scorer_of([{"answer": "A"}]) is score_multiple_choice
    with pytest.raises(ValueError, match=r"test\.jsonl, row 1: expected the right letter"):
        scorer_of([{"answer": "A"}, {"prompt": "p"}], "test.jsonl")


def test_an_isomer_is_scored_by_its_logic() -> None:
    row = {"answer": "e1", "options": ["Baker", "Adams"], "meanings": ["e0", "e1"]}
    assert scorer_of([row]) is score_isomer
    assert score_isomer(row, " So.\nAnswer: the said Adams.") == ("e1", 1.0)
    assert score_isomer(row, " So.\nAnswer: Baker") == ("e0", 0.0)
    assert score_isomer(row, " So it is Adams") == (None, 0.0)


def test_an_isomer_whose_answer_no_option_means_cannot_be_scored() -> None:
    row = {"answer": "Adams", "options": ["Baker", "Adams"], "meanings": ["e0", "e1"]}
    with pytest.raises(ValueError, match=r"row 0: expected an answer among the meanings .* e0, e1"):
        scorer_of([row])


@pytest.mark.parametrize(
    ("prompt", "answer", "told", "others"),
    [
        ("How many?", "17", "17 mg", {"seventeen": "17", "18 mg": "18", "perhaps": None}),
        ("How much?", "1/2", "0.5", {"$0.50": "1/2", "half": "1/2", "5 or 6": None}),
        ("Which?\nA) iron (old)\nB) neon", "e0", "iron (old)", {"A": "e0", "Neon.": "e1"}),
        ("Is it?", "yes", "Yes", {"true": "yes", "no": "no", "unknown": "unknown"}),
        ("Ann or Bo?", "e0", "Ann", {"ann.": "e0", "Bo": "bo", "Cy": None}),
    ],
)
def test_a_retold_isomer_is_scored_by_what_its_answer_means(
    prompt: str, answer: str, told: str, others: dict[str, str | None]
) -> None:
    row = {"isomer_id": "p", "prompt": prompt, "answer": answer, "answer_text": told}
    assert scorer_of([row]) is score_isomer
    chat = row | {"prompt": [{"role": "user", "content": prompt}]}
    for said, found in {told: answer, **others}.items():
        for asked in (row, chat):
            assert score_isomer(asked, f" So.\nAnswer: {said}") == (found, float(found == answer))
    assert score_isomer(row, f" So {told}") == score_isomer(row, "Answer:\n") == (None, 0.0)


def test_isomers_whose_answer_cannot_be_read_are_not_scored_as_letters() -> None:
    row = {"isomer_id": "p", "domain": "law", "prompt": "How many?", "answer": "17"}
    with pytest.raises(ValueError, match=r"row 1: expected an isomer's right letter.*found.*'17'"):
        scorer_of([row | {"answer": "B"}, row])
    assert scorer_of([row | {"answer": "B"}]) is score_multiple_choice


def test_generated_isomers_are_read_back_in_every_domain_and_phrasing() -> None:
    rows = isomer_tests(8)
    score = scorer_of(rows)
    for row in rows:
        assert score(row, row["completion"]) == (row["answer"], 1.0)
        for option, meaning in zip(row["options"], row["meanings"], strict=True):
            assert score(row, f" So.\nAnswer: the said {option}.").answer == meaning
