"""Isomers by constructed models: scores of consistency and tables by test, known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from poise.evaluate.isomers import (
    MEAN,
    MEASURES,
    answer_disagreement,
    differences,
    independent_groups,
    logical_consistency,
    outcomes,
    set_distance,
    title_of,
)
from poise.evaluate.records import Place, QuestionRecord, Representations
from poise.evaluate.statistics import Interval, mean_interval, paired_difference

from .constructed import DOMAINS, header, question


def representations(sets: Sequence[ArrayLike], test: str | None = None) -> Representations:
    """One array of shape (domains, width) for each set."""
    arrays = [np.asarray(vectors, dtype=np.float32) for vectors in sets]
    places = tuple(
        Place(f"s{i}/{domain}", f"s{i}", domain, test)
        for i, vectors in enumerate(arrays)
        for domain, _ in zip(DOMAINS, vectors, strict=False)
    )
    return Representations(header(), places, np.concatenate(arrays))


def score(sets: Sequence[ArrayLike]) -> float:
    return logical_consistency(representations(sets)).score.mean


def plain_score(sets: Sequence[ArrayLike]) -> float:
    """Of vectors as they are: beside their opposites, the mean that is taken off is 0."""
    return score([*sets, *(-np.asarray(vectors) for vectors in sets)])


def test_a_model_that_the_domain_does_not_touch_scores_zero() -> None:
    rng = np.random.default_rng(0)
    sets = [np.tile(rng.normal(size=16), (4, 1)) for _ in range(9)]
    assert score(sets) == plain_score(sets) == 0.0
    assert plain_score([[[1.0, 2.0], [2.0, 4.0]]]) == pytest.approx(0.0, abs=1e-12)  # length


def test_the_score_is_the_mean_over_pairs_then_sets() -> None:
    assert plain_score([np.eye(4)]) == pytest.approx(1.0)
    assert plain_score([[[1.0, 0.0], [-3.0, 0.0]]]) == pytest.approx(2.0)
    # Two of three pairs are orthogonal, one is equal.
    assert plain_score([[[1, 0], [1, 0], [0, 1]]]) == pytest.approx(2 / 3)
    assert plain_score([[[1, 0], [1, 0]], [[1, 0], [0, 1]]]) == pytest.approx(0.5)


def test_unrelated_problems_score_about_one_however_much_they_share() -> None:
    rng = np.random.default_rng(1)
    sets = [rng.normal(size=(4, 64)) + 100.0 for _ in range(100)]
    assert plain_score(sets) < 0.01
    assert score(sets) == pytest.approx(1.0, abs=0.02)
    # Collapse onto one direction earns nothing.
    line = rng.normal(size=(200, 4, 1)) * np.ones(8)
    assert score(list(line)) == pytest.approx(1.0, abs=0.1)


def test_a_shift_that_a_domain_adds_to_its_problems_counts() -> None:
    rng = np.random.default_rng(3)
    logic = rng.normal(size=(50, 1, 32))
    shift = rng.normal(size=(1, 4, 32))
    scores = [score(list(logic + size * shift)) for size in (0.0, 0.5, 1.0, 2.0)]
    assert scores[0] == 0.0 and scores == sorted(scores)
    assert scores[2] == pytest.approx(0.5, abs=0.15)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_order_scale_and_rotation_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = representations(list(rng.normal(size=(5, 3, 6))))
    expected = logical_consistency(found).score.mean
    order = rng.permutation(len(found.places))
    places = tuple(found.places[i] for i in order)
    shuffled = Representations(header(), places, found.vectors[order])
    assert logical_consistency(shuffled).score.mean == pytest.approx(expected)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    moved = Representations(header(), found.places, (7.0 * found.vectors @ turn).astype("float32"))
    assert logical_consistency(moved).score.mean == pytest.approx(expected, abs=1e-5)


def test_a_sets_distance_lies_between_zero_and_two_in_any_order() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(4, 8))
    found = [set_distance(vectors[list(order)]) for order in permutations(range(4))]
    np.testing.assert_allclose(found, found[0], rtol=1e-12)
    for scale in (1e-200, 1.0, 1e150):
        assert 0.0 <= set_distance(scale * rng.normal(size=(5, 3))) <= 2.0
    # Zero vectors are equal to each other and to nothing else.
    assert set_distance(np.zeros((3, 4))) == 0.0
    assert set_distance(np.array([[0.0, 0.0], [1.0, 0.0]])) == pytest.approx(1.0)


def test_sets_of_one_domain_are_left_out_and_counted() -> None:
    found = logical_consistency(representations([[[1, 0], [0, 1]], [[0.5, 0.5]]]))
    assert (found.score.mean, found.sets, found.left_out) == (pytest.approx(2.0), 1, 1)
    with pytest.raises(ValueError, match="two domains or more, found 2 sets with one domain"):
        logical_consistency(representations([[[1, 0]], [[5, 5]]]))


def test_a_set_of_one_name_in_two_tests_is_two_sets() -> None:
    here, there = (representations([np.eye(2)], test) for test in ("deeper", "reversed"))
    vectors = np.concatenate([here.vectors, there.vectors])
    both = Representations(header(), here.places + there.places, vectors)
    assert logical_consistency(both).sets == 2
    assert both.of_test("reversed").places == there.places


def test_senseless_sets_are_refused() -> None:
    places = (Place("a", "s", "law"), Place("b", "s", "law"))
    with pytest.raises(ValueError, match="each domain once in a set, found 'law' twice in 's'"):
        logical_consistency(Representations(header(), places, np.eye(2, dtype=np.float32)))


def answers(*by_domain: Sequence[Any], name: str = "s") -> list[QuestionRecord]:
    """A set; each entry holds the answers in one domain."""
    return [
        question(f"{name}/{domain}", extracted, domain=domain, isomer_id=name)
        for domain, extracted in zip(DOMAINS, by_domain, strict=False)
    ]


@pytest.mark.parametrize(
    ("by_domain", "expected"),
    [
        ("AAAA", 0.0),
        ("BBBB", 0.0),  # equal answers agree, right or wrong
        ("AAAB", 0.5),
        ("ABCD", 1.0),
        ([[None], [None], ["A"]], 1.0),  # no answer agrees with nothing
        ([["A", "B"], ["A", "B"]], 0.5),
        ([["A", "A", None, "B"], ["A", "C"]], 1 - 2 / 8),
    ],
)
def test_disagreement_is_the_share_of_pairs(by_domain: Any, expected: float) -> None:
    found = answer_disagreement(answers(*by_domain))
    assert found.score.mean == pytest.approx(expected) and found.sets == 1
    assert answer_disagreement(answers(*by_domain)[::-1]) == found


def sets(test: str, *words: str) -> list[QuestionRecord]:
    """Isomer sets of one test; each word holds the answers in the domains, A is right."""
    return [
        question(f"{test}{i}/{d}", letter, domain=d, isomer_id=f"{test}{i}", test=test, level=2)
        for i, word in enumerate(words)
        for d, letter in zip(DOMAINS, word, strict=False)
    ]


def vectors_of(records: Sequence[QuestionRecord], vectors: ArrayLike) -> Representations:
    places = tuple(Place(q.id, q.isomer_id or "", q.domain, q.test) for q in records)
    return Representations(header(), places, np.asarray(vectors, dtype=np.float32))


def test_accuracy_and_worst_domain_are_those_of_the_test() -> None:
    found = outcomes([*sets("in_distribution", "AAB", "AAA"), *sets("reversed", "BBA", "BAB")])
    assert list(found) == ["in_distribution", "reversed", MEAN]
    assert list(outcomes(sets("in_distribution", "AAA"))) == ["in_distribution"]
    assert outcomes([question("q", "A")]) == {}
    first = found["in_distribution"]
    assert (first.sets, first.questions) == (2, 6)
    assert first.accuracy.mean == pytest.approx(5 / 6)
    assert (first.worst_domain, first.worst.mean) == ("medicine", 0.5)
    assert (found["reversed"].worst_domain, found["reversed"].worst.mean) == ("law", 0.0)


def test_the_unit_of_evidence_is_the_set() -> None:
    found = outcomes(sets("reversed", "AAA", "BBB", "AAA", "BBB"))["reversed"]
    assert found.accuracy == mean_interval([1.0, 0.0, 1.0, 0.0])


def test_the_mean_out_of_distribution_gives_each_test_one_voice() -> None:
    tests = {"no_cue": ["BBB"], "reversed": ["AAA"] * 4, "deeper": ["BBA"], "own": ["BBB"]}
    found = outcomes([q for test, words in tests.items() for q in sets(test, *words)])
    assert list(found) == ["no_cue", "reversed", "deeper", "own", MEAN]
    mean = found[MEAN]
    assert mean.accuracy.mean == pytest.approx((1 + 1 / 3) / 2)
    assert mean.disagreement is not None
    assert mean.disagreement.mean == pytest.approx((0 + 2 / 3) / 2)
    assert (mean.worst_domain, mean.sets, mean.questions) == ("law, deeper", 5, 15)


def test_tests_that_ask_the_same_sets_are_no_independent_evidence() -> None:
    words = ["AAA", "BBB"] * 8

    def of_mean(*names: str) -> Interval:
        records = [q for name in names for q in sets(name, *words)]
        # The same forms in every test.
        same = [
            replace(q, isomer_id=(q.isomer_id or "").removeprefix(q.test or "")) for q in records
        ]
        return outcomes(same)[MEAN].accuracy

    assert of_mean("reversed", "unseen_phrasings") == of_mean("reversed")
    apart = outcomes([*sets("reversed", *words), *sets("deeper", *words)])[MEAN].accuracy
    assert apart.high - apart.low < 0.8 * (of_mean("reversed").high - of_mean("reversed").low)


def test_groups_that_share_no_set_have_the_mean_of_the_tests() -> None:
    tests = [{"a": 1.0, "b": 0.0}, {"b": 0.5, "c": 0.25, "d": 0.75}, {"e": 1.0}]
    weights, groups = independent_groups(tests)
    assert sum(weights) == pytest.approx(1.0)
    assert sorted(name for group in groups for name in group) == ["a", "b", "c", "d", "e"]
    expected = np.mean([np.mean(list(test.values())) for test in tests])
    found = sum(w * np.mean(list(g.values())) for w, g in zip(weights, groups, strict=True))
    assert found == pytest.approx(expected)
    assert all(0.0 <= value <= 1.0 for group in groups for value in group.values())


def test_representations_are_centred_test_by_test() -> None:
    records = [*sets("reversed", "AA", "AA"), *sets("deeper", "AA", "AA")]
    # Within its test, the domain decides the direction; the tests lie far from each other.
    vectors = vectors_of(records, [[1, 0], [-1, 0]] * 2 + [[1, 99], [-1, 99]] * 2)
    found = outcomes(records, vectors)
    for test in ("reversed", "deeper", MEAN):
        consistency = found[test].consistency
        assert consistency is not None and consistency.mean == pytest.approx(2.0)
    assert logical_consistency(vectors).score.mean < 0.1


def test_sets_of_one_domain_have_accuracy_alone() -> None:
    records = [*sets("deeper", "A", "B"), *sets("reversed", "AA")]
    found = outcomes(records, vectors_of(records, np.arange(8).reshape(4, 2)))
    assert (found["deeper"].disagreement, found["deeper"].consistency) == (None, None)
    assert found["reversed"].consistency is not None
    assert (found[MEAN].disagreement, found[MEAN].consistency) == (None, None)


def test_differences_are_paired_by_set() -> None:
    before = [*sets("no_cue", "AAB"), *sets("reversed", "BBB", "BBA", "BBB")]
    after = [*sets("reversed", "BBB", "AAA", "AAA"), *sets("no_cue", "AAA")]
    found = differences(before, after)
    assert list(found) == ["no_cue", "reversed", MEAN]
    assert found["reversed"] == paired_difference([0, 1 / 3, 0], [0, 1, 1])
    assert found["reversed"].questions == 3
    assert found[MEAN] == found["reversed"]


def test_the_difference_out_of_distribution_is_the_mean_over_tests() -> None:
    before = [*sets("deeper", *["BBB"] * 12), *sets("reversed", *["BBB"] * 6)]
    after = [*sets("deeper", *["AAA"] * 12), *sets("reversed", *["BBA"] * 6)]
    found = differences(before, after)[MEAN]
    assert found.interval.mean == pytest.approx((1 + 1 / 3) / 2)
    assert found.interval.low < found.interval.mean < found.interval.high
    assert found.p_value < 0.01 and found.questions == 18
    same = differences(before, before)[MEAN]
    assert (same.interval.mean, same.p_value) == (0.0, 1.0)


def test_questions_that_only_one_evaluation_has_are_left_out_of_the_difference() -> None:
    before, after = sets("deeper", "AAB", "BBB"), sets("deeper", "AAA")
    assert differences(before, after)["deeper"].questions == 1
    assert differences(before, sets("reversed", "AAA")) == {}
    assert differences(before, [q for q in sets("deeper", "A", "B", "A") if "2" in q.id]) == {}
    changed = [question("deeper0/law", "A", "B", domain="law", isomer_id="s", test="deeper")]
    with pytest.raises(ValueError, match="has the answer 'A' before and 'B' after"):
        differences(sets("deeper", "A"), changed)


def test_measures_are_written_with_interval_and_domain() -> None:
    found = outcomes([*sets("reversed", "AAB", "AAB")])[MEAN]
    cells = [measure.cell(found) for measure in MEASURES]
    assert cells[0].startswith("66.7 [") and cells[0].endswith("]")
    assert cells[1].startswith("0.0 [0.0, ") and cells[1].endswith("(medicine, reversed)")
    assert cells[2].startswith("66.7 [") and cells[3] == "–"
    assert {measure.cell(None) for measure in MEASURES} == {"–"}
    assert [title_of(test) for test in ("no_cue", MEAN)] == ["no cue", "mean out of distribution"]
