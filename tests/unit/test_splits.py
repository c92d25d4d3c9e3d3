"""Splits by content."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from poise.splits import SHARES, SPLITS, check_split, stable_fraction, stable_split


def test_shares_are_eighty_ten_ten():
    counts = Counter(stable_split(f"question {i}") for i in range(20000))
    expected = [20000 * SHARES[split] for split in SPLITS]
    assert stats.chisquare([counts[split] for split in SPLITS], expected).pvalue > 1e-3


def test_the_split_of_a_key_never_changes():
    known = {"question 0": "train", "question 6": "validation", "question 3": "test"}
    assert {key: stable_split(key) for key in known} == known
    assert stable_fraction("poise") == pytest.approx(0.777469, abs=1e-6)


@given(st.text())
def test_every_text_has_a_fraction_below_one(key):
    assert 0 <= stable_fraction(key) < 1
    assert stable_split(key) in SPLITS


def test_an_unknown_split_is_refused():
    assert check_split("test") == "test"
    with pytest.raises(
        ValueError, match="split: expected one of train, validation, test, found 'x'"
    ):
        check_split("x")
