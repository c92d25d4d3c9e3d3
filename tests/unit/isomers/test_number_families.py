"""Families of numbers: their options and words tell nothing, and their equations hold."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache

import pytest

from poise.isomers.families import counting, rates, state_changes, two_unknowns
from poise.isomers.model import DOMAINS, Family, Form, Story

from .solvers import SOLVERS

FAMILIES = [rates.FAMILY, two_unknowns.FAMILY, counting.FAMILY, state_changes.FAMILY]
CASES = [
    pytest.param(f, d, id=f"{f.name}-{d}", marks=() if d <= 2 else pytest.mark.slow)
    for f in FAMILIES
    for d in f.depths
]
EACH = pytest.mark.parametrize("family", [pytest.param(f, id=f.name) for f in FAMILIES])
DRAWS = 600
# Words that say no more of a domain than a comma does.
FUNCTION_WORDS = (
    "after all and are before both did does each end every for from has have how into its last "
    "many must neither none nor not now off one only other out over single size that the their "
    "then these this times two under were which with would"
)
# Five standard errors of a share of one in four, and of one in two.
NEAR_QUARTER = 5 * (0.25 * 0.75 / DRAWS) ** 0.5
NEAR_HALF = 5 * (0.5 * 0.5 / DRAWS) ** 0.5


@cache
def forms(family: Family, depth: int) -> list[Form]:
    rng = random.Random(depth)
    return [family.draw(rng, depth) for _ in range(DRAWS)]


@cache
def stories(family: Family, domain: str, phrasing: int) -> list[tuple[Form, Story]]:
    rng = random.Random(f"{domain} {phrasing}")
    drawn = [form for depth in family.depths for form in forms(family, depth)[:20]]
    return [(form, family.render(form, domain, phrasing, rng)) for form in drawn]


@pytest.mark.parametrize(("family", "depth"), CASES)
def test_an_independent_solver_finds_the_same_answer(family: Family, depth: int) -> None:
    for form in forms(family, depth):
        assert SOLVERS[family.name](form.data) == form.answer, form
        assert len(form.options) == 4
        if form.answer.isdigit():
            assert all(2 <= int(option) < 1000 for option in form.options)


@EACH
def test_numbers_stay_below_one_hundred_at_shallow_depths(family: Family) -> None:
    drawn = [form for depth in (1, 2) for form in forms(family, depth)]
    for form in drawn:
        assert all(int(number) < 100 for number in re.findall(r"\d+", json.dumps(form.data)))
        assert not form.answer.isdigit() or int(form.answer) < 100


@pytest.mark.parametrize(("family", "depth"), CASES)
def test_the_size_of_an_option_says_nothing(family: Family, depth: int) -> None:
    ranks, wide, places = Counter(), Counter(), Counter()
    numeric = [form for form in forms(family, depth) if form.answer.isdigit()]
    for form in numeric:
        options = sorted(map(int, form.options))
        rank = options.index(int(form.answer))
        ranks[rank] += 1
        places[form.options.index(form.answer)] += 1
        low, high = options[1] - options[0], options[3] - options[2]
        if low != high:
            wide[(low > high) == (rank < 2)] += 1
    slack = (DRAWS / len(numeric)) ** 0.5
    for rank in range(4):
        assert abs(ranks[rank] / len(numeric) - 0.25) < slack * NEAR_QUARTER, ranks
        assert abs(places[rank] / len(numeric) - 0.25) < slack * NEAR_QUARTER, places
    assert abs(wide[True] / wide.total() - 0.5) < 1.1 * slack * NEAR_HALF, wide


@pytest.mark.slow
@EACH
def test_no_option_is_a_number_that_the_facts_state(family: Family) -> None:
    for phrasing, domain in enumerate(DOMAINS[:3]):
        for form, story in stories(family, domain, phrasing):
            if form.answer.isdigit():
                told = set(re.findall(r"\d+", " ".join(story.facts)))
                assert not told & set(form.options), story


def test_a_part_has_no_option_above_its_whole() -> None:
    for form in forms(counting.FAMILY, 2):
        whole = form.data["given"].get("total", 1000)
        assert all(int(option) < whole for option in form.options), form
    for form in forms(two_unknowns.FAMILY, 1):
        assert all(int(option) < form.data["total"] for option in form.options), form


def test_the_place_of_mention_of_a_holder_says_nothing() -> None:
    rng, drawn = random.Random(3), []
    while len(drawn) < DRAWS:
        form = state_changes.FAMILY.draw(rng, 3)
        drawn += [form] * (form.data["kind"] == "holder")
    first = Counter(form.answer for form in drawn)
    last = sum(form.answer == f"e{form.data['changes'][-1][-1]}" for form in drawn)
    assert all(abs(count / DRAWS - 0.25) < NEAR_QUARTER for count in first.values()), first
    assert abs(last / DRAWS - 0.25) < NEAR_QUARTER


@pytest.mark.slow
@EACH
def test_there_are_five_thousand_forms_of_one_or_two_steps(family: Family) -> None:
    rng, found = random.Random(7), set()
    for turn in range(12_000):
        found.add(json.dumps(family.draw(rng, 1 + (turn % 6 > 0)).data, sort_keys=True))
        if len(found) >= 5000:
            return
    pytest.fail(f"only {len(found)} different forms in 12,000")


@EACH
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_equation_of_the_reasoning_holds(family: Family, domain: str) -> None:
    equation = re.compile(r"(\(?\d[\d +*/()-]*?) = (\d+)")
    told = [pair for p in range(family.phrasings) for pair in stories(family, domain, p)]
    for form, story in told:
        if form.answer.isdigit():
            assert re.findall(r"\d+", story.steps[-1])[-1] == form.answer, story.steps
        for left, right in equation.findall(" ".join(story.steps)):
            if left.count("(") == left.count(")"):
                assert _calculate(left) == int(right), (left, right, story.steps)


def _calculate(text: str) -> float:
    """The value of a sum, product or quotient of whole numbers."""
    assert re.fullmatch(r"[\d +*/()-]+", text)
    return float(eval(text, {"__builtins__": {}}))


@EACH
def test_domains_share_no_sentence_and_no_opening(family: Family) -> None:
    openings = {
        domain: {
            " ".join(re.sub(r"\d+", "0", sentence).split()[:6])
            for phrasing in range(family.phrasings)
            for _, story in stories(family, domain, phrasing)
            for sentence in (*story.facts, *story.steps, story.question)
            if len(re.sub(r"[\d\W]+", " ", sentence).split()) >= 4
        }
        for domain in DOMAINS
    }
    for a in DOMAINS:
        for b in DOMAINS:
            assert a == b or not openings[a] & openings[b], (a, b, openings[a] & openings[b])


@EACH
def test_domains_share_function_words_alone(family: Family) -> None:
    words = {
        domain: {
            word
            for phrasing in range(family.phrasings)
            for _, story in stories(family, domain, phrasing)
            for text in (*story.facts, *story.steps, story.question)
            for word in re.findall(r"[a-z-]{3,}", text.lower())
        }
        for domain in DOMAINS
    }
    for a in DOMAINS:
        for b in DOMAINS:
            shared = words[a] & words[b] - {*FUNCTION_WORDS.split()}
            assert a == b or not shared, (a, b, shared)
