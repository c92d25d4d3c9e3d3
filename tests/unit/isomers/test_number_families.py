"""Families of numbers: their options and words tell nothing, and their equations hold."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache

import pytest

from poise.isomers.families import counting, rates, state_changes, two_unknowns
from poise.isomers.forms import DOMAINS, Family, Form, Story

FAMILIES = [rates.FAMILY, two_unknowns.FAMILY, counting.FAMILY, state_changes.FAMILY]
EACH = pytest.mark.parametrize("family", [pytest.param(f, id=f.name) for f in FAMILIES])
DRAWS = 600
# Words that say no more of a domain than a comma does.
FUNCTION_WORDS = (
    "after all and are before both did does each end every for from has have how into its last "
    "many must neither none nor not now off one only other out over single size that the their "
    "then these this times two under were which with would"
)
NEAR_QUARTER = 5 * (0.25 * 0.75 / DRAWS) ** 0.5  # five standard errors of a share


@cache
def forms(family: Family, depth: int) -> list[Form]:
    rng = random.Random(depth)
    return [family.draw(rng, depth) for _ in range(60)]


@cache
def stories(family: Family, domain: str, phrasing: int) -> list[tuple[Form, Story]]:
    rng = random.Random(f"{domain} {phrasing}")
    drawn = [form for depth in family.depths for form in forms(family, depth)[:20]]
    return [(form, family.render(form, domain, phrasing, rng)) for form in drawn]


@EACH
def test_numbers_stay_below_one_hundred_at_shallow_depths(family: Family) -> None:
    drawn = [form for depth in (1, 2) for form in forms(family, depth)]
    for form in drawn:
        assert all(int(number) < 100 for number in re.findall(r"\d+", json.dumps(form.data)))
        assert not form.answer.isdigit() or int(form.answer) < 100


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
