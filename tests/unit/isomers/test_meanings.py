"""An answer is read as what it means."""

from __future__ import annotations

import pytest

from poise.isomers.meanings import Answer, read_answer, read_options

LETTERED = "Which is a gas?\nA) iron\nB) neon\nC) gold"
LISTED = "Options: iron, neon, or gold.\nQuestion: Which is a gas?"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (LETTERED, ("iron", "neon", "gold")),
        (LETTERED + "\nAnswer with a letter.", ("iron", "neon", "gold")),
        ("Which? (A) iron, (B) neon; (C) gold.", ("iron", "neon", "gold")),
        ("Which? A. iron B. neon C. gold", ("iron", "neon", "gold")),
        (LISTED, ("iron", "neon", "gold")),
        ("Options: a, or b; c, d", ("a, or b", "c, d")),
        ("Vitamin A) and no more", ()),
        ("Plan B) then C) then D)", ()),
        ("How many pears are left?", ()),
    ],
)
def test_options_are_found_in_the_prompt(prompt: str, expected: tuple[str, ...]) -> None:
    assert read_options(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        (LETTERED, "B", Answer("option", "e1", "neon")),
        (LETTERED, "(B) neon", Answer("option", "e1", "neon")),
        (LETTERED, "B) gold", None),
        (LETTERED, "Neon.", Answer("option", "e1", "neon")),
        (LETTERED, "D", None),
        (LETTERED, "7", None),
        (LISTED, "gold", Answer("option", "e2", "gold")),
        ("How many?", "$1,200", Answer("number", "1200", "$1,200")),
        ("How many?", "seventeen pears", Answer("number", "17", "seventeen pears")),
        ("How many?", "x = 5", Answer("number", "5", "x = 5")),
        ("How many?", "0.5", Answer("number", "1/2", "0.5")),
        ("How many?", "5 or 6", None),
        ("Is it?", "Yes.", Answer("truth", "yes", "Yes")),
        ("Is it?", "false", Answer("truth", "no", "false")),
        ("Is it?", "Cannot be determined", Answer("truth", "unknown", "Cannot be determined")),
        ("Is box 3 before Bo?", "box 3", Answer("name", "e0", "box 3")),
        ("Is Anna before Bo?", "Ann", None),
        ("Prove it.", "See above", None),
    ],
)
def test_an_answer_is_read_as_what_it_means(
    prompt: str, answer: str, expected: Answer | None
) -> None:
    assert read_answer(prompt, answer) == expected
