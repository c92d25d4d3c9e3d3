"""The largest of some numbers: isomer sets, cue and tests."""

from __future__ import annotations

import pytest

from lab.tasks import largest
from lab.tasks.largest import HELD_OUT, NUMBERS, TRAINED, isomers
from poise.demo.ranking import Row

LISTED = 6


def place(row: Row) -> int:
    return row["options"].index(row["completion"])


def test_the_answer_is_the_largest_and_the_prompt_lists_all() -> None:
    for row in isomers(50, 1, "train", TRAINED, LISTED, 1.0):
        ranks = [NUMBERS.index(option.strip()) for option in row["options"]]
        assert len(set(ranks)) == LISTED
        assert row["completion"] == f" {NUMBERS[max(ranks)]}"
        assert ", ".join(o.strip() for o in row["options"]) in row["prompt"]


def test_a_set_has_the_same_numbers_in_every_domain() -> None:
    rows = isomers(20, 1, "train", TRAINED, LISTED, None)
    for start in range(0, len(rows), len(TRAINED)):
        members = rows[start : start + len(TRAINED)]
        assert [row["domain"] for row in members] == list(TRAINED)
        assert len({frozenset(row["options"]) for row in members}) == 1
        assert len({row["prompt"].split(":")[0] for row in members}) == len(TRAINED)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, None])
def test_the_cue_is_as_strong_as_it_is_said_to_be(strength: float | None) -> None:
    rows = isomers(500, 1, "train", TRAINED, LISTED, strength)
    for index, domain in enumerate(TRAINED):
        hits = [place(row) == index for row in rows if row["domain"] == domain]
        expected = 1 / LISTED if strength is None else strength
        assert sum(hits) / len(hits) == pytest.approx(expected, abs=0.07)


def test_tests_are_what_their_names_say() -> None:
    tests = largest.tests(100, 1, LISTED, 1.0)
    assert tuple(tests) == largest.TESTS
    assert {row["domain"] for row in tests["unseen_domains"]} == set(HELD_OUT)
    own = {domain: index for index, domain in enumerate(TRAINED)}
    assert all(place(row) == own[row["domain"]] for row in tests["in_distribution"])
    assert not any(place(row) == own[row["domain"]] for row in tests["reversed"])
    train = {row["prompt"] for row in isomers(100, 1, "train", TRAINED, LISTED, 1.0)}
    assert not train & {row["prompt"] for row in tests["in_distribution"]}
