"""The question and its checks."""

import dataclasses

import pytest

from poise.question import Question

QUESTION = Question(
    id="physics-speed-1",
    domain="physics",
    template="speed",
    level=2,
    stem="How fast?",
    options=("1 m/s", "2 m/s", "3 m/s", "4 m/s"),
    answer="B",
    solution="v = 4 m / 2 s.\nAnswer: B",
)


def test_the_right_option_belongs_to_the_letter():
    assert QUESTION.right_option == "2 m/s"


def test_a_question_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        QUESTION.answer = "C"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ("1", "2", "3")}, "expected four different options"),
        ({"options": ("1", "2", "2", "3")}, "expected four different options"),
        ({"answer": "E"}, "expected an answer among A, B, C, D, found 'E'"),
        ({"solution": "Answer: C"}, "expected a solution that ends with 'Answer: B'"),
        ({"level": 5}, "expected a level among 0, 1, 2, 3, 4, found 5"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=f"question physics-speed-1: {message}"):
        dataclasses.replace(QUESTION, **change)
