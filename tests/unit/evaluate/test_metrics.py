"""Measures over records whose values are known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from poise.evaluate import metrics

from .constructed import question


def test_average_is_the_mean_reward_of_the_samples() -> None:
    assert metrics.average(question("q", "AABC")) == 0.5
    assert metrics.average(question("q", "AB", rewards=(0.25, 1.0))) == 0.625


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("answers", ["AABBB", "BBBBB", "AAAAA", "ABBBB"])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(k: int, answers: str) -> None:
    subsets = list(combinations(answers, k))
    expected = sum("A" in subset for subset in subsets) / len(subsets)
    assert metrics.pass_at(k)(question("q", answers)) == pytest.approx(expected)


def test_pass_at_1_is_the_average() -> None:
    for answers in ("AABC", "BBBB", "AAAA"):
        q = question("q", answers)
        assert metrics.pass_at(1)(q) == pytest.approx(metrics.average(q))


def test_pass_at_more_than_the_samples_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pass@5: expected 5 or more samples, q has 4"):
        metrics.pass_at(5)(question("q", "AABC"))
    with pytest.raises(ValueError, match="k >= 1"):
        metrics.pass_at(0)


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
    assert metrics.majority(question("q", answers)) == pytest.approx(expected)


def test_rates_and_lengths_are_means_over_the_samples() -> None:
    q = question("q", ["A", None, None, None], lengths=(1, 2, 3, 6), finished=(True, False) * 2)
    assert metrics.format_rate(q) == 0.25
    assert metrics.finished_rate(q) == 0.5
    assert metrics.mean_length(q) == 3.0


def test_groups_are_sorted_and_leave_out_what_has_no_level() -> None:
    questions = [
        question("a", "A", level=3),
        question("b", "A", level=None),
        question("c", "A", level=1),
        question("d", "A", level=3),
    ]
    groups = metrics.group_by(questions, lambda q: q.level)
    assert {level: [q.id for q in group] for level, group in groups.items()} == {
        1: ["c"],
        3: ["a", "d"],
    }
    assert list(groups) == [1, 3]


def test_pairs_are_matched_by_id_not_by_order() -> None:
    before = [question("a", "AB"), question("b", "BB"), question("only before", "AA")]
    after = [question("b", "AB"), question("a", "AA"), question("only after", "AA")]
    first, second = metrics.paired_values(before, after, metrics.average)
    np.testing.assert_array_equal(first, [0.0, 0.5])
    np.testing.assert_array_equal(second, [0.5, 1.0])


def test_pairs_of_different_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="none in common"):
        metrics.paired_values([question("a", "A")], [question("b", "A")], metrics.average)
    with pytest.raises(ValueError, match="answer 'A' before and 'B' after"):
        metrics.paired_values([question("a", "A")], [question("a", "A", "B")], metrics.average)


def test_the_k_of_an_evaluation_is_what_every_question_has() -> None:
    assert metrics.samples_per_question([question("a", "AAA"), question("b", "AA")]) == 2
    assert metrics.samples_per_question([]) == 0
