"""Tests and corrections against numbers from the formulas."""

from __future__ import annotations

import math

import pytest

from lab.comparisons import compare, holm


def test_holm_is_holms() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, made monotone.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_students_paired_test() -> None:
    baseline = {1: 1.0, 2: 2.0, 3: 3.0}
    found = compare(baseline, {1: 2.0, 2: 4.0, 3: 6.0})
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)); with two degrees of freedom the
    # distribution is elementary, p = 1 - t / sqrt(2 + t^2).
    t = 2 * math.sqrt(3)
    assert found is not None and found.interval is not None
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t))
    half = 4.302652729911275 / math.sqrt(3)
    assert (found.seeds, found.mean) == (3, 2.0)
    assert (found.interval.low, found.interval.high) == pytest.approx((2 - half, 2 + half))


def test_only_seeds_that_both_have_are_compared() -> None:
    found = compare({1: 1.0, 2: 2.0, 9: 5.0}, {1: 2.0, 2: 4.0, 3: 9.0})
    assert found is not None and (found.seeds, found.mean) == (2, 1.5)
    assert compare({1: 1.0}, {2: 1.0}) is None


def test_one_seed_tells_a_difference_and_no_more() -> None:
    found = compare({1: 1.0}, {1: 3.0})
    assert found is not None
    assert (found.seeds, found.mean, found.interval, found.p_value) == (1, 2.0, None, None)


def test_equal_values_up_to_rounding_are_no_difference() -> None:
    found = compare({1: 0.1 + 0.2, 2: 0.3, 3: 1.0}, {1: 0.3, 2: 0.1 + 0.2, 3: 1.0})
    assert found is not None and (found.mean, found.p_value) == (0.0, 1.0)


def test_equal_differences_claim_no_more_than_their_signs() -> None:
    found = compare({s: float(s) for s in range(6)}, {s: s + 0.3 for s in range(6)})
    assert found is not None and found.interval is not None
    assert found.p_value == pytest.approx(2 / 2**6)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.3, 0.3))
