"""Rounding and writing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.science.numbers import (
    article,
    fixed,
    is_plain,
    round_to,
    scientific,
    show,
    significant,
    width,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Fraction(5, 2), "2.50"),
        (Fraction("2.345"), "2.35"),
        (Fraction("9.995"), "10.0"),
        (Fraction(1, 3), "0.333"),
        (Fraction("0.00045"), "0.000450"),
        (12345, "12300"),
        (99960, "100000"),
        (7, "7.00"),
    ],
)
def test_three_significant_digits_round_halves_up(value, text):
    assert significant(value, 3) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(Fraction("0.0000123"), "1.23 × 10^-5"), (6.022e23, "6.02 × 10^23"), (99950, "1.00 × 10^5")],
)
def test_scientific_form_has_one_digit_before_the_point(value, text):
    assert scientific(value, 3) == text


def test_given_quantities_are_written_in_full():
    assert [show(v) for v in (40, Fraction(5, 2), Fraction(1, 20), 100)] == [
        "40",
        "2.5",
        "0.05",
        "100",
    ]


def test_fixed_places_round_halves_up():
    assert [fixed(Fraction("7.125"), 2), fixed(Fraction(5, 2), 0)] == ["7.13", "3"]


def test_very_small_and_large_values_are_not_plain():
    assert [is_plain(v) for v in (0.001, 999999, 0.0009, 10**6)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("alga", "an alga"), ("8.5 mol/L", "an 8.5 mol/L"), ("11 kg", "an 11 kg"), ("18", "an 18"),
     ("1.8 V", "a 1.8 V"), ("cell", "a cell"), ("0.8", "a 0.8"), ("110 kg", "a 110 kg")],
)  # fmt: skip
def test_the_article_follows_the_sound(text, expected):
    assert article(text) == expected


@given(st.fractions(min_value=Fraction(1, 10**6), max_value=10**9), st.integers(1, 8))
def test_rounding_moves_by_half_a_unit_at_most(value, digits):
    rounded = round_to(value, digits)
    unit = Fraction(10) ** (rounded.adjusted() - digits + 1)
    assert abs(Fraction(rounded) - value) <= unit / 2
    assert len(rounded.as_tuple().digits) == digits or rounded.as_tuple().exponent > 0


@given(st.floats(1e-4, 1e8))
def test_width_is_the_length_of_three_significant_digits(value):
    assert width(value) == len(significant(value, 3))
