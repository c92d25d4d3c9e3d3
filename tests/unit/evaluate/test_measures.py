"""Measures over records whose values are known."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import combinations

import pytest

from poise.evaluate.measures import (
    common,
    compare,
    described,
    group_by,
    majority,
    pass_at,
    summarise,
)

from .constructed import question


@pytest.mark.parametrize("answers", ["AABBB", "BBBBB", "AAAAA", "ABBBB"])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(answers: str) -> None:
    for k in (1, 2, 3, 5):
        subsets = list(combinations(answers, k))
        expected = sum("A" in subset for subset in subsets) / len(subsets)
        assert pass_at(k, question("q", answers)) == pytest.approx(expected)
    for k in (0, 6):
        with pytest.raises(ValueError, match=rf"pass@{k}: expected 1 to 5, the samples of q"):
            pass_at(k, question("q", answers))


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["A", "A", "B", None], 1.0),
        (["B", "B", "A", None], 0.0),
        (["A", "B", None, None], 0.5),
        (["A", "B", "C", None], 1 / 3),
        ([None, None, None, "A"], 1.0),
        ([None, None, None, None], 0.0),
    ],
)
def test_majority_counts_answers_and_shares_ties(
    answers: list[str | None], expected: float
) -> None:
    assert majority(question("q", answers)) == pytest.approx(expected)


def test_groups_are_sorted_and_leave_out_what_has_no_level() -> None:
    levels = {"a": 3, "b": None, "c": 1, "d": 3}
    groups = group_by([question(x, "A", level=n) for x, n in levels.items()], lambda q: q.level)
    found = [(level, [q.id for q in group]) for level, group in groups.items()]
    assert found == [(1, ["c"]), (3, ["a", "d"])]


def test_a_summary_holds_every_measure() -> None:
    questions = [
        question("a", "AAAB"),
        question("b", ["B", "B", None, "A"], finished=(True, True, False, True)),
    ]
    found = summarise(questions)
    assert (found.questions, found.k) == (2, 4)
    assert found.average.mean == 0.5
    assert found.passed.mean == 1.0
    assert found.majority.mean == 0.5
    assert found.format.mean == 0.875
    assert found.finished == 0.875
    assert found.length == 6.5
    assert found.passes == pytest.approx({1: 0.5, 2: 0.75, 4: 1.0})
    plain = json.loads(json.dumps(asdict(found)))
    assert plain["average"]["mean"] == 0.5 and list(plain["passes"]) == ["1", "2", "4"]


def test_pass_at_k_ends_at_the_k_that_every_question_has() -> None:
    found = summarise([question("a", "AAAAAB"), question("b", "AAAAAAA")])
    assert found.k == 6 and list(found.passes) == [1, 2, 4, 6]
    with pytest.raises(ValueError, match="one or more questions"):
        summarise([])


def test_the_difference_is_taken_on_the_questions_that_both_have() -> None:
    before = [question("a", "BB"), question("b", "AB"), question("gone", "AA")]
    after = [question("b", "AA"), question("a", "AB"), question("new", "BB")]
    assert [(x.id, y.id) for x, y in common(before, after)] == [("b", "b"), ("a", "a")]
    found = compare(before, after)
    assert (found.interval.mean, found.questions) == (0.5, 2)


def test_pairs_of_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="none in common"):
        compare([question("a", "A")], [question("b", "A")])
    with pytest.raises(ValueError, match="answer 'A' before and 'B' after"):
        compare([question("a", "A")], [question("a", "A", "B")])


def test_settings_are_said_in_one_line() -> None:
    said = described({"k": 4, "top_p": 0.95, "stop": [], "x": None, "y": {"think": False}})
    assert said == "k 4, top_p 0.95, x none, y think: False"
    assert described({"stop": ["\n", "Q:"]}) == r"stop '\n', Q:"
