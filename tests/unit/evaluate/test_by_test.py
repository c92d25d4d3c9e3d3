"""Tables by test: known numbers, paired by isomer set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poise.evaluate.isomers import MEAN, differences, independent_groups, outcomes
from poise.evaluate.isomers import MEASURES, over_seeds, title_of
from poise.evaluate.records import QuestionRecord
from poise.evaluate.records import Place, Representations
from poise.evaluate.statistics import (
    Difference,
    Interval,
    mean_interval,
    paired_difference,
    run_interval,
)

from .constructed import header, question

DOMAINS = ("law", "mathematics", "medicine")


def sets(test: str, *answers: str) -> list[QuestionRecord]:
    """Isomer sets of one test; each word holds the answers in the domains, A is right."""
    return [
        question(f"{test}{i}/{d}", letter, domain=d, isomer_id=f"{test}{i}", test=test, level=2)
        for i, word in enumerate(answers)
        for d, letter in zip(DOMAINS, word, strict=False)
    ]


def test_accuracy_and_worst_domain_are_those_of_the_test() -> None:
    found = outcomes([*sets("in_distribution", "AAB", "AAA"), *sets("reversed", "BBA", "BAB")])
    assert list(found) == ["in_distribution", "reversed", MEAN]
    first = found["in_distribution"]
    assert (first.sets, first.questions) == (2, 6)
    assert first.accuracy.mean == pytest.approx(5 / 6)
    assert (first.worst_domain, first.worst.mean) == ("medicine", 0.5)
    assert (found["reversed"].worst_domain, found["reversed"].worst.mean) == ("law", 0.0)


def test_the_unit_of_evidence_is_the_set() -> None:
    found = outcomes(sets("reversed", "AAA", "BBB", "AAA", "BBB"))["reversed"]
    assert found.accuracy == mean_interval([1.0, 0.0, 1.0, 0.0])


def test_the_mean_out_of_distribution_gives_each_test_one_voice() -> None:
    records = [
        *sets("no_cue", "BBB"),
        *sets("reversed", "AAA", "AAA", "AAA", "AAA"),
        *sets("deeper", "BBA"),
        *sets("own", "BBB"),
    ]
    found = outcomes(records)
    assert list(found) == ["no_cue", "reversed", "deeper", "own", MEAN]
    assert found[MEAN].accuracy.mean == pytest.approx((1 + 1 / 3) / 2)
    assert found[MEAN].disagreement is not None
    assert found[MEAN].disagreement.mean == pytest.approx((0 + 2 / 3) / 2)
    assert found[MEAN].worst_domain == "law, deeper"
    assert (found[MEAN].sets, found[MEAN].questions) == (5, 15)


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


def test_tests_in_distribution_alone_have_no_mean_out_of_it() -> None:
    assert list(outcomes(sets("in_distribution", "AAA"))) == ["in_distribution"]
    assert outcomes([question("q", "A")]) == {}


def test_representations_are_centred_test_by_test() -> None:
    records = [*sets("reversed", "AA", "AA"), *sets("deeper", "AA", "AA")]
    places = tuple(Place(q.id, q.isomer_id or "", q.domain, q.test) for q in records)
    # Within its test, the domain decides the direction; the tests lie far from each other.
    vectors = np.array([[1, 0], [-1, 0]] * 2 + [[1, 99], [-1, 99]] * 2, dtype=np.float32)
    found = outcomes(records, Representations(header(), places, vectors))
    for test in ("reversed", "deeper", MEAN):
        consistency = found[test].consistency
        assert consistency is not None and consistency.mean == pytest.approx(2.0)
    plain = outcomes(records, Representations(header(), places, vectors), center="none")["deeper"]
    assert plain.consistency is not None and plain.consistency.mean < 0.01


def test_sets_of_one_domain_have_accuracy_alone() -> None:
    records = [*sets("deeper", "A", "B"), *sets("reversed", "AA")]
    places = tuple(Place(q.id, q.isomer_id or "", q.domain, q.test) for q in records)
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    found = outcomes(records, Representations(header(), places, vectors))
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
    assert isinstance(same, Difference)
    assert (same.interval.mean, same.p_value) == (0.0, 1.0)


def test_questions_that_only_one_evaluation_has_are_left_out_of_the_difference() -> None:
    before, after = sets("deeper", "AAB", "BBB"), sets("deeper", "AAA")
    assert differences(before, after)["deeper"].questions == 1
    assert differences(before, sets("reversed", "AAA")) == {}
    assert differences(before, [q for q in sets("deeper", "A", "B", "A") if "2" in q.id]) == {}


def test_changed_answers_are_refused() -> None:
    changed = [question("deeper0/law", "A", "B", domain="law", isomer_id="s", test="deeper")]
    with pytest.raises(ValueError, match="has the answer 'A' before and 'B' after"):
        differences(sets("deeper", "A"), changed)


def test_runs_with_three_seeds_are_taken_together() -> None:
    found = [outcomes(sets("deeper", word)) for word in ("AAA", "AAB", "ABB", "BBB")]
    configs = [*({"config.seed": seed, "config.tau": 1.0} for seed in range(3)), {}]
    (group,) = over_seeds("wxyz", configs, found)
    assert group.runs == ("w", "x", "y")
    assert group.tests["deeper"]["accuracy"] == run_interval([1, 2 / 3, 1 / 3])
    assert group.tests[MEAN]["disagreement"] == run_interval([0, 2 / 3, 2 / 3])
    assert "consistency" not in group.tests["deeper"]
    assert over_seeds("wx", configs[:2], found[:2]) == []


def test_measures_are_written_with_interval_and_domain() -> None:
    found = outcomes([*sets("reversed", "AAB", "AAB")])[MEAN]
    cells = [measure.cell(found) for measure in MEASURES]
    assert cells[0].startswith("66.7 [") and cells[0].endswith("]")
    assert cells[1].startswith("0.0 [0.0, ") and cells[1].endswith("(medicine, reversed)")
    assert cells[2].startswith("66.7 [") and cells[3] == "–"
    assert [title_of(test) for test in ("no_cue", MEAN)] == ["no cue", "mean out of distribution"]
