"""Numbers are read as values, whatever their form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.isomers.quantities import numbers, quantities


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("twenty-five apples and 1,200 pears", ["25", "1200"]),
        ("one hundred and five, 3/4 of them", ["105", "3/4"]),
        ("15%, 15 percent and fifteen per cent", ["3/20"] * 3),
        ("half a dozen; two and a half; 2 1/2 and 2½", ["6", "5/2", "5/2", "5/2"]),
        ("a third of the boys, two thirds, one third", ["1/3", "2/3", "1/3"]),
        ("a half and half as many and 0.5 and .5", ["1/2"] * 4),
        ("three quarters, a quarter", ["3/4", "1/4"]),
        ("10-5, -5, −5, 3:2", ["10", "5", "-5", "-5", "3", "2"]),
        ("5kg of x2 for $1,200.50.", ["5", "2401/2"]),
        ("two million and 2.5 million", ["2000000", "2500000"]),
        ("three hundred thousand and forty two", ["300042"]),
        ("one thousand two hundred", ["1200"]),
        ("twice as many, doubled, triple", ["2", "2", "3"]),
        ("two three four", ["2", "3", "4"]),
        ("three dozen, a dozen, a hundred and fifty", ["36", "12", "150"]),
        (r"\frac{3}{4} and 20\%", ["3/4", "1/5"]),
        ("miles a second, per second, each second", []),
        ("often, anyone, someone, weight, tend", []),
    ],
)
def test_numbers_are_read_in_any_form(text: str, expected: list[str]) -> None:
    assert numbers(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the second largest, the third girl, a third boy", {"#2": 1, "#3": 2}),
        ("the 2nd, the twenty-fifth and the 25th", {"#2": 1, "#25": 2}),
        ("first the one, then the other one, 1 of them", {}),
        ("7 and seven", {"7": 2}),
    ],
)
def test_ordinals_count_and_one_does_not(text: str, expected: dict[str, int]) -> None:
    assert quantities(text) == expected


@given(st.integers(2, 10**9))
def test_a_whole_number_is_read_with_and_without_separators(value: int) -> None:
    assert numbers(f"there are {value} of them") == numbers(f"{value:,}.") == [str(value)]


@given(st.text("aeft hd-19.,/%½−$#\\{}\n", max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert all(count > 0 for count in quantities(text).values())


@pytest.mark.parametrize(
    "text", ["9" * 5000, "million " * 2000, "9 " + "billion " * 2000, "-" * 99]
)
def test_a_text_that_never_ends_is_read_too(text: str) -> None:
    assert all(len(name) < 60 for name in numbers(text))
