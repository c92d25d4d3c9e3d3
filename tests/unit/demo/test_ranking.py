"""The laboratory of ranks: isomer sets, cues and tests."""

from __future__ import annotations

import hashlib
import random

import pytest

from poise.demo import ranking
from poise.demo.ranking import DOMAINS, HELD_OUT, LISTED, Row, isomers

TRAINED = DOMAINS[:4]


def listed(row: Row) -> list[str]:
    """The symbols of a problem, in order."""
    return [word for word in row["prompt"].split() if word[0] in DOMAINS and word[1:].isdigit()]


def ranks(row: Row) -> list[int]:
    return [int(symbol[1:]) for symbol in listed(row)]


def place(row: Row) -> int:
    """Where the answer stands."""
    return listed(row).index(row["completion"].strip())


@pytest.mark.parametrize("items", [4, 5])
def test_the_answer_is_the_second_largest_in_the_domains_own_symbols(items: int) -> None:
    for row in isomers(40, 1, "train", TRAINED, 0.9, items):
        assert all(symbol.startswith(row["domain"]) for symbol in listed(row))
        assert row["completion"].strip() == f"{row['domain']}{sorted(ranks(row))[-2]}"
        assert len(set(ranks(row))) == items


def test_a_set_tells_the_same_ranks_in_every_domain() -> None:
    rows = isomers(30, 1, "train", TRAINED, 0.9)
    for start in range(0, len(rows), len(TRAINED)):
        members = rows[start : start + len(TRAINED)]
        assert len({row["isomer_id"] for row in members}) == 1
        assert [row["domain"] for row in members] == list(TRAINED)
        assert len({frozenset(ranks(row)) for row in members}) == 1


@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0, None])
def test_the_cue_is_as_strong_as_it_is_said_to_be(strength: float | None) -> None:
    rows = isomers(600, 1, "train", TRAINED, strength)
    for domain in TRAINED:
        own = [row for row in rows if row["domain"] == domain]
        hits = sum(place(row) == DOMAINS.index(domain) % LISTED for row in own) / len(own)
        assert hits == pytest.approx(0.25 if strength is None else strength, abs=0.06)


def test_training_and_tests_share_no_list_of_ranks() -> None:
    train = {frozenset(ranks(row)) for row in isomers(500, 1, "train", TRAINED, 0.9)}
    for name, rows in ranking.tests(100, 1, TRAINED, 0.9).items():
        assert not train & {frozenset(ranks(row)) for row in rows}, name


def test_every_test_asks_what_its_name_says() -> None:
    tests = ranking.tests(200, 1, TRAINED, 0.9)
    assert tuple(tests) == ranking.TESTS
    assert {row["domain"] for row in tests["unseen_domains"]} == set(HELD_OUT)
    assert {len(listed(row)) for row in tests["deeper"]} == {5}
    assert all(row["prompt"].startswith("given") for row in tests["unseen_phrasings"])
    others = [row for name in tests if name != "unseen_phrasings" for row in tests[name]]
    assert not any(row["prompt"].startswith("given") for row in others)
    cue = {domain: DOMAINS.index(domain) % LISTED for domain in TRAINED}
    assert not any(place(row) == cue[row["domain"]] for row in tests["reversed"])
    hits = [place(row) == cue[row["domain"]] for row in tests["in_distribution"]]
    assert sum(hits) / len(hits) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("strength", [0.0, 1.0, None])
def test_an_ending_of_each_domains_own_points_to_the_answer(strength: float | None) -> None:
    rows = isomers(400, 1, "train", TRAINED, strength, cue="spelling")
    for own, domain in zip(ranking.ENDINGS, TRAINED, strict=True):
        hits, places = 0, set()
        mine = [row for row in rows if row["domain"] == domain]
        for row in mine:
            words = row["prompt"].split(f" {ranking.SECOND}")[0].split()[-LISTED:]
            assert sorted(word[-1] for word in words) == list(ranking.ENDINGS)
            (pointed,) = (word for word in words if word[-1] == own)
            places.add(words.index(pointed))
            hits += pointed[:-1] == row["completion"].strip()
        assert places == set(range(LISTED))
        expected = 0.25 if strength is None else strength
        assert hits / len(mine) == pytest.approx(expected, abs=0.07 if strength is None else 0)


def test_models_of_earlier_sizes_learn_from_the_same_questions_as_before() -> None:
    rng = random.Random(0)
    known = [ranking._known(rng, ranking.SIZES["full"]) for _ in range(200)]
    text = repr(known).encode()
    assert hashlib.sha256(text).hexdigest()[:12] == "644448d24f35"
