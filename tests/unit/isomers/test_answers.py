"""Answers of isomers: read from the words of a domain, whatever decorates them."""

from __future__ import annotations

import pytest

from poise.isomers.answers import (
    before_answer,
    isomer_reward,
    logical_answer,
    match_option,
    stated_answer,
)

NAMES = ["Baker", "Dr. Adams", "the red box", "the blue box"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" A is first.\nAnswer: Adams", "Adams"),
        ("Answer: Baker\nso again\nAnswer: Adams.\nand more", "Adams"),
        ("Answer:", None),
        ("Answer: \nAdams", None),
        ("Adams", None),
        ("answer: Adams", None),
    ],
)
def test_the_last_line_that_says_answer_counts(text: str, expected: str | None) -> None:
    assert stated_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("Baker", 0),
        ("baker.", 0),
        ("**Baker**", 0),
        ("the said Baker", 0),
        ("it is Baker", 0),
        ("Baker is the tallest", 0),
        ("patient Baker", 0),
        ("dr. adams", 1),
        ("Adams", 1),
        ("the aforesaid Adams", 1),
        ("Red box", 2),
        ("red", 2),
        ("box", None),
        ("Baker or Adams", None),
        ("Baker and Dr. Adams", None),
        ("not Baker", None),
        ("Bak", None),
        ("Bakers", None),
        ("the", None),
        ("Carter", None),
        ("a very long story that comes to Baker", None),
    ],
)
def test_an_option_is_found_by_its_words(answer: str, place: int | None) -> None:
    assert match_option(answer, NAMES) == place


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ("17", 1),
        ("17.0", 1),
        ("17 mg", 1),
        ("17 tablets", 1),
        ("7", 0),
        ("1,200", 2),
        ("1200 mg", 2),
        ("-7", 3),
        ("−7 mg", 3),
        ("1", None),
        ("7 or 17", None),
        ("mg", None),
    ],
)
def test_numbers_are_compared_as_numbers(answer: str, place: int | None) -> None:
    assert match_option(answer, ["7 mg", "17 mg", "1,200 mg", "-7 mg"]) == place


def test_yes_and_no_and_unknown_are_told_apart() -> None:
    options = ["yes", "no", "it cannot be known"]
    found = [match_option(x, options) for x in ("Yes.", "No", "cannot be known", "yes and no")]
    assert found == [0, 1, 2, None]
    assert match_option("No, it is not", options) is None


def test_every_option_is_found_by_itself_even_if_it_holds_another() -> None:
    options = ["iron", "iron oxide", "the oxide", "oxide of iron"]
    assert [match_option(option, options) for option in options] == [0, 1, 2, 3]


def test_options_that_read_alike_answer_nothing() -> None:
    assert match_option("adams", ["Adams", "ADAMS"]) is None
    assert match_option("5", ["5 mg", "5 kg"]) is None
    assert match_option("5 kg", ["5 mg", "5 kg"]) == 1


def test_the_logical_answer_is_the_options_meaning() -> None:
    meanings = ["e1", "e0"]
    assert logical_answer(" So.\nAnswer: The said Adams", ["Baker", "Adams"], meanings) == "e0"
    assert logical_answer(" So.\nAnswer: Carter", ["Baker", "Adams"], meanings) is None
    assert logical_answer(" Adams", ["Baker", "Adams"], meanings) is None
    with pytest.raises(ValueError, match="a meaning for each option, found 2 options and 1"):
        logical_answer("Answer: x", ["Baker", "Adams"], ["e1"])


def test_rewards_are_given_for_the_meaning() -> None:
    texts = ["Answer: Adams", "Answer: Baker", "no idea"]
    columns = {"options": [["Baker", "Adams"]] * 3, "meanings": [["e1", "e0"]] * 3}
    assert isomer_reward(texts, ["e0"] * 3, **columns, domain=["law"] * 3) == [1.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        isomer_reward(texts, ["e0"], **columns)
    with pytest.raises(ValueError, match="expected an answer among its meanings 'e1', found 'e9'"):
        isomer_reward.check_rows([{"answer": "e9", "meanings": ["e1"]}])
    with pytest.raises(ValueError, match=r"row 0: .* its meanings \(none\), found 'e9'"):
        isomer_reward.check_rows([{"answer": "e9", "meanings": None}])


def test_the_text_before_the_answer_ends_with_its_marker() -> None:
    assert before_answer(" Answer: x, no.\nAnswer: 17 mg") == " Answer: x, no.\nAnswer:"
    with pytest.raises(ValueError, match=r"expected a line 'Answer: \.\.\.' at its end"):
        before_answer(" so it is 17")
