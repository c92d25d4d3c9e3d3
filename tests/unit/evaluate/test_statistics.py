"""Intervals with known answers, and a check that 95 % means 95 %."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.evaluate.statistics import (
    Interval,
    mean_difference,
    mean_interval,
    mean_of,
    paired_difference,
    run_interval,
)

fractions = st.integers(0, 16).map(lambda i: i / 16)


def wilson(successes: int, n: int) -> tuple[float, float]:
    z = 1.959963984540054
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (3, 10), (10, 10), (57, 100), (1, 1)])
def test_zeros_and_ones_get_wilsons_interval(successes: int, n: int) -> None:
    found = mean_interval([1.0] * successes + [0.0] * (n - successes))
    assert found.method == "wilson"
    assert (found.low, found.high) == pytest.approx(wilson(successes, n))
    assert found.mean == successes / n


def test_a_large_symmetric_sample_gets_the_normal_interval() -> None:
    sample = np.linspace(0.2, 0.8, 400)
    found = mean_interval(sample)
    half = 1.96 * sample.std(ddof=1) / math.sqrt(len(sample))
    assert found.method == "bca"
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.002)


def test_values_of_another_range_have_its_interval() -> None:
    sample = np.random.default_rng(3).uniform(size=30)
    plain, twice = mean_interval(sample), mean_interval(2.0 * sample, highest=2.0)
    assert (twice.low, twice.high) == pytest.approx((2 * plain.low, 2 * plain.high))
    assert mean_interval([1.0 + 1e-15, 0.0]) == mean_interval([1.0, 0.0])  # by rounding


def test_equal_values_do_not_claim_certainty() -> None:
    found = mean_interval([0.5] * 20)
    other = wilson(0, 20)[1]
    assert found.method == "constant"
    assert (found.low, found.high) == pytest.approx((0.5 - other / 2, 0.5 + other / 2))


def test_equal_models_differ_by_zero_give_or_take_what_the_sample_can_tell() -> None:
    same = np.linspace(0.1, 0.9, 50)
    found = paired_difference(same, same)
    other = wilson(0, 50)[1]
    assert found.p_value == 1.0
    assert found.interval.mean == 0.0
    assert (found.interval.low, found.interval.high) == pytest.approx((-other, other))


@settings(max_examples=30, deadline=None)
@given(st.lists(fractions, min_size=1, max_size=30))
def test_an_interval_lies_in_the_range_and_holds_its_mean(values: list[float]) -> None:
    found = mean_interval(values)
    assert 0.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.low < found.high


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(fractions, fractions), min_size=1, max_size=20))
def test_a_difference_mirrors_when_before_and_after_swap(pairs: list[tuple[float, float]]) -> None:
    before, after = zip(*pairs, strict=True)
    found, mirrored = paired_difference(before, after), paired_difference(after, before)
    assert -1.0 <= found.interval.low <= found.interval.mean <= found.interval.high <= 1.0
    assert found.interval.mean == -mirrored.interval.mean
    assert 0.0 < found.p_value <= 1.0
    assert found.p_value == pytest.approx(mirrored.p_value, abs=0.03)


def test_pairing_sees_what_separate_intervals_cannot() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0.0, 0.8, 60)
    after = before + rng.uniform(0.0, 0.1, 60)
    found = paired_difference(before, after)
    assert mean_interval(before).high > mean_interval(after).low
    assert found.interval.low > 0.03
    assert found.p_value < 0.001


def test_the_p_value_of_few_pairs_is_exact() -> None:
    # All five pairs rise: 2 of 2^5 sign patterns are as extreme.
    found = paired_difference([0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert found.p_value == pytest.approx(2 / 32)
    assert found.questions == 5


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 4])
def test_the_95_percent_interval_covers_the_truth_about_95_percent_of_the_time(k: int) -> None:
    rng = np.random.default_rng(11)
    trials, n, truth = 300, 60, 0.4
    hits = 0
    for _ in range(trials):
        difficulty = rng.beta(0.8, 1.2, n)  # mean 0.4: easy and hard questions
        found = mean_interval(rng.binomial(k, difficulty) / k)
        hits += found.low <= truth <= found.high
    # Three standard errors of a share of 0.95 among 300 are 0.038.
    assert abs(hits / trials - 0.95) < 0.038


@pytest.mark.slow
def test_the_paired_interval_covers_the_true_difference_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(12)
    trials, n, k = 120, 60, 4
    hits = 0
    for _ in range(trials):
        difficulty = rng.uniform(0.0, 0.8, n)
        before = rng.binomial(k, difficulty) / k
        after = rng.binomial(k, difficulty + 0.1) / k
        interval = paired_difference(before, after).interval
        hits += interval.low <= 0.1 <= interval.high
    # Three standard errors of a share of 0.95 among 120 are 0.06.
    assert abs(hits / trials - 0.95) < 0.06


@pytest.mark.parametrize(
    ("values", "complaint"),
    [([], "one value a question"), ([[0.5]], "shape"), ([1.5], r"\[0"), ([math.nan], r"\[0")],
)
def test_values_that_are_no_rates_are_refused(values: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        mean_interval(values)
    with pytest.raises(ValueError, match="found 1 and 2"):
        paired_difference([0.5], [0.5, 0.5])


def test_the_interval_over_runs_is_students() -> None:
    found = run_interval([0.1, 0.2, 0.6])
    half = 4.302652729911275 * np.std([0.1, 0.2, 0.6], ddof=1) / 3**0.5  # t(0.975, 2)
    assert (found.mean, found.method) == (pytest.approx(0.3), "t")
    assert (found.low, found.high) == pytest.approx((0.3 - half, 0.3 + half))
    assert run_interval([0.25, 0.25, 0.25]) == Interval(0.25, 0.25, 0.25, "t")


@pytest.mark.parametrize("values", [[], [0.1], [0.1, float("nan")]])
def test_an_interval_over_too_few_runs_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="expected two or more finite values"):
        run_interval(values)


def test_the_mean_of_independent_intervals_shrinks_as_variances_add() -> None:
    wide, narrow = Interval(0.5, 0.2, 0.9, "bca"), Interval(0.1, 0.1, 0.4, "wilson")
    found = mean_of([wide, narrow], [0.5, 0.5])
    assert (found.mean, found.method) == (0.3, "mover")
    assert found.low == pytest.approx(0.3 - 0.3 / 2)
    assert found.high == pytest.approx(0.3 + np.hypot(0.4, 0.3) / 2)
    assert mean_of([wide, narrow], [1.0, 0.0]).high == pytest.approx(wide.high)
    assert mean_of([wide], [1.0]) == wide
    four = mean_of([wide] * 4, [0.25] * 4)
    assert four.high - four.mean == pytest.approx(0.4 / 2)
    for weights in ([], [0.5], [0.5, 0.5]):
        with pytest.raises(ValueError, match="one or more with weights that sum to 1"):
            mean_of([wide] * min(1, len(weights)), weights)


def test_the_mean_of_intervals_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    rates, hits = (0.2, 0.5, 0.8), 0
    wilsons = {n: mean_interval([1.0] * n + [0.0] * (40 - n)) for n in range(41)}
    for _ in range(400):
        found = mean_of([wilsons[rng.binomial(40, rate)] for rate in rates], [1 / 3] * 3)
        hits += found.low <= 0.5 <= found.high
    assert 0.92 <= hits / 400 <= 0.99


def test_the_mean_difference_gives_each_test_one_voice() -> None:
    rise = np.zeros(20), np.ones(20)
    fall = np.ones(5), np.zeros(5)
    found = mean_difference([rise, fall], [0.5, 0.5])
    assert found.interval.mean == 0.0
    assert found.questions == 25
    assert mean_difference([rise, fall], [0.9, 0.1]).interval.mean == pytest.approx(0.8)
    assert mean_difference([rise], [1.0]) == paired_difference(*rise)
    assert mean_difference([rise, (np.zeros(5), np.ones(5))], [0.5, 0.5]).p_value < 0.001
