"""Consistency of constructed models whose score is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from poise.evaluate.isomers import (
    CENTERS,
    answer_disagreement,
    centered,
    logical_consistency,
    set_distance,
)
from poise.evaluate.records import QuestionRecord
from poise.evaluate.records import Place, Representations

from .constructed import header, question

DOMAINS = ("law", "mathematics", "medicine", "science")


def representations(sets: Sequence[ArrayLike], test: str | None = None) -> Representations:
    """One array of shape (domains, width) for each set."""
    arrays = [np.asarray(vectors, dtype=np.float32) for vectors in sets]
    places = tuple(
        Place(f"s{i}/{domain}", f"s{i}", domain, test)
        for i, vectors in enumerate(arrays)
        for domain, _ in zip(DOMAINS, vectors, strict=False)
    )
    return Representations(header(), places, np.concatenate(arrays))


def score(sets: Sequence[ArrayLike], center: str = "none") -> float:
    return logical_consistency(representations(sets), center).score.mean


def isomers(answers: Sequence[Sequence[Any]], set_name: str = "s") -> list[QuestionRecord]:
    """A set; each entry holds the answers in one domain."""
    return [
        question(f"{set_name}/{domain}", extracted, domain=domain, isomer_id=set_name)
        for domain, extracted in zip(DOMAINS, answers, strict=False)
    ]


def test_a_model_that_the_domain_does_not_touch_scores_zero() -> None:
    rng = np.random.default_rng(0)
    sets = [np.tile(rng.normal(size=16), (4, 1)) for _ in range(9)]
    for center in CENTERS:
        assert score(sets, center) == 0.0


def test_length_does_not_count_before_centring() -> None:
    assert score([[[1.0, 2.0], [2.0, 4.0]]]) == pytest.approx(0.0, abs=1e-12)


def test_orthogonal_domains_score_one_and_opposite_ones_two() -> None:
    assert score([np.eye(4)]) == pytest.approx(1.0)
    assert score([[[1.0, 0.0], [-3.0, 0.0]]]) == pytest.approx(2.0)


def test_the_score_of_a_set_is_the_mean_over_its_pairs() -> None:
    # Two of three pairs are orthogonal, one is equal.
    assert score([[[1, 0], [1, 0], [0, 1]]]) == pytest.approx(2 / 3)
    assert score([[[1, 0], [1, 0]], [[1, 0], [0, 1]]]) == pytest.approx(0.5)


def test_unrelated_problems_score_about_one_however_much_they_share() -> None:
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(4, 64)) + 100.0 for _ in range(100)]
    assert score(sets, "none") < 0.01
    assert score(sets, "mean") == pytest.approx(1.0, abs=0.02)
    assert score(sets, "standard") == pytest.approx(1.0, abs=0.02)


def test_collapse_onto_one_direction_earns_nothing() -> None:
    rng = np.random.default_rng(2)
    line = rng.normal(size=(200, 4, 1)) * np.ones(8)
    assert score(list(line), "mean") == pytest.approx(1.0, abs=0.1)


def test_a_shift_that_a_domain_adds_to_its_problems_counts() -> None:
    rng = np.random.default_rng(3)
    logic = rng.normal(size=(50, 1, 32))
    shift = rng.normal(size=(1, 4, 32))
    scores = [score(list(logic + size * shift), "mean") for size in (0.0, 0.5, 1.0, 2.0)]
    assert scores[0] == 0.0 and scores == sorted(scores)
    assert scores[2] == pytest.approx(0.5, abs=0.15)


def test_standardising_gives_small_dimensions_an_equal_voice() -> None:
    rng = np.random.default_rng(4)
    # The large dimension holds the logic, the small ones hold noise.
    logic = np.repeat(rng.normal(size=(60, 1, 1)), 4, axis=1)
    sets = list(np.concatenate([logic, 0.001 * rng.normal(size=(60, 4, 15))], axis=2))
    assert score(sets, "mean") < 0.01
    assert score(sets, "standard") > 0.5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), center=st.sampled_from(CENTERS))
def test_order_scale_and_rotation_change_nothing(seed: int, center: str) -> None:
    rng = np.random.default_rng(seed)
    found = representations(list(rng.normal(size=(5, 3, 6))))
    expected = logical_consistency(found, center)
    order = rng.permutation(len(found.places))
    shuffled = Representations(
        header(), tuple(found.places[i] for i in order), found.vectors[order]
    )
    assert logical_consistency(shuffled, center).score.mean == pytest.approx(expected.score.mean)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0] if center != "standard" else np.eye(6)
    moved = Representations(header(), found.places, (7.0 * found.vectors @ turn).astype("float32"))
    assert logical_consistency(moved, center).score.mean == pytest.approx(
        expected.score.mean, abs=1e-5
    )


def test_the_order_of_domains_changes_no_sets_distance() -> None:
    vectors = np.random.default_rng(5).normal(size=(4, 8))
    found = [set_distance(vectors[list(order)]) for order in permutations(range(4))]
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_distances_lie_between_zero_and_two() -> None:
    rng = np.random.default_rng(6)
    for scale in (1e-200, 1.0, 1e150):
        assert 0.0 <= set_distance(scale * rng.normal(size=(5, 3))) <= 2.0


def test_zero_vectors_are_equal_to_each_other_and_to_nothing_else() -> None:
    assert set_distance(np.zeros((3, 4))) == 0.0
    assert set_distance(np.array([[0.0, 0.0], [1.0, 0.0]])) == pytest.approx(1.0)


def test_sets_of_one_domain_are_left_out_and_counted() -> None:
    found = logical_consistency(representations([[[1, 0], [0, 1]], [[5, 5]]]), "none")
    assert (found.score.mean, found.sets, found.left_out) == (pytest.approx(1.0), 1, 1)
    with pytest.raises(ValueError, match="two domains or more, found 2 sets with one domain"):
        logical_consistency(representations([[[1, 0]], [[5, 5]]]))


def test_the_interval_is_over_sets_and_holds_the_score() -> None:
    rng = np.random.default_rng(7)
    found = logical_consistency(representations(list(rng.normal(size=(40, 3, 4)))), "none")
    assert found.score.low < found.score.mean < found.score.high < 2.0


def test_a_set_of_one_name_in_two_tests_is_two_sets() -> None:
    here, there = (representations([np.eye(2)], test) for test in ("deeper", "reversed"))
    both = Representations(
        header(), here.places + there.places, np.concatenate([here.vectors, there.vectors])
    )
    assert logical_consistency(both, "none").sets == 2
    assert both.tests == ["deeper", "reversed"]
    assert both.of_test("reversed").places == there.places


def test_a_domain_twice_in_a_set_is_refused() -> None:
    places = (Place("a", "s", "law"), Place("b", "s", "law"))
    with pytest.raises(ValueError, match="each domain once in a set, found 'law' twice in 's'"):
        logical_consistency(Representations(header(), places, np.eye(2, dtype=np.float32)))


def test_another_center_is_refused() -> None:
    with pytest.raises(ValueError, match="center: expected one of mean, standard, none"):
        centered(np.eye(2), "median")


def test_equal_answers_agree_right_or_wrong() -> None:
    found = answer_disagreement([*isomers("AAAA"), *isomers("BBBB", "t")])
    assert (found.score.mean, found.sets) == (0.0, 2)


def test_disagreement_is_the_share_of_pairs() -> None:
    assert answer_disagreement(isomers("AAAB")).score.mean == pytest.approx(0.5)
    assert answer_disagreement(isomers("ABCD")).score.mean == pytest.approx(1.0)


def test_no_answer_agrees_with_nothing() -> None:
    assert answer_disagreement(isomers([[None], [None], ["A"]])).score.mean == 1.0


def test_with_several_samples_disagreement_is_a_probability() -> None:
    assert answer_disagreement(isomers([["A", "B"], ["A", "B"]])).score.mean == pytest.approx(0.5)
    found = answer_disagreement(isomers([["A", "A", None, "B"], ["A", "C"]]))
    assert found.score.mean == pytest.approx(1 - 2 / 8)


def test_disagreement_does_not_depend_on_the_order_of_questions() -> None:
    questions = [*isomers("AAB"), *isomers("ABC", "t"), *isomers("AA", "u")]
    expected = answer_disagreement(questions)
    assert answer_disagreement(questions[::-1]) == expected


def test_questions_without_a_set_say_nothing_about_consistency() -> None:
    with pytest.raises(ValueError, match="two domains or more, found 0 sets"):
        answer_disagreement([question("q", "A")])
    assert answer_disagreement([question("q", "B"), *isomers("AA")]).score.mean == 0.0
