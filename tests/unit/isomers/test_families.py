"""Every family: right answers, sound texts, forms that names do not change."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from poise.isomers.families import FAMILIES, words
from poise.isomers.families.syllogism import solve
from poise.isomers.families.words import an, counted, every, plural, read_words
from poise.isomers.forms import DOMAINS, Form, way
from poise.isomers.generate import form_key
from tests.grids import grid

from .solvers import SOLVERS, solve_by_crowds

DEEP = [(name, depth) for name, family in FAMILIES.items() for depth in family.depths]
CASES = grid(DEEP, [case for case in DEEP if case[1] <= 2])
TELLINGS = [
    (name, domain, phrasing)
    for name, family in FAMILIES.items()
    for domain in DOMAINS
    for phrasing in range(family.phrasings)
]
LOGIC = ("ordering", "implication", "syllogism", "branching")
# Seeds are fixed, so these tests are not random; the level says how odd a sample may look.
P_VALUE = 1e-4


@cache
def drawn(name: str, depth: int, count: int = 100) -> tuple[Form, ...]:
    rng = random.Random(f"{name} {depth}")
    return tuple(FAMILIES[name].draw(rng, depth) for _ in range(count))


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_an_independent_solver_agrees(name: str, depth: int) -> None:
    for form in drawn(name, depth):
        assert SOLVERS[name](form.data) == form.answer, form
        assert (form.family, form.depth) == (name, depth)
        assert json.loads(json.dumps(form.data)) == form.data
        assert 3 <= len(form.options) == len(set(form.options)) <= 4
        assert form.answer in form.options
        if form.answer.isdigit():
            assert all(2 <= int(option) < 1000 for option in form.options)


@pytest.mark.parametrize(("name", "domain", "phrasing"), TELLINGS)
def test_tellings_are_whole_english_sentences_that_reach_the_answer(
    name: str, domain: str, phrasing: int
) -> None:
    family, rng = FAMILIES[name], random.Random(f"{name} {domain} {phrasing}")
    for form in (form for depth in family.depths for form in drawn(name, depth)[:12]):
        story = family.render(form, domain, phrasing, rng)
        assert len({story.text(option) for option in form.options}) == len(form.options)
        assert re.search(rf"\b{re.escape(story.text(form.answer))}\b", story.steps[-1])
        assert story.question.endswith(("?", "."))
        for text in (*story.facts, story.question, *story.steps):
            assert not text[0].islower() or text[1] == " ", text  # "x = 3." may begin so
            assert text.endswith((".", "?")) and text == text.strip(), text
            assert not re.search(r"[{}|\n]|  |\.\.|\ba [aeio]\w|\ban [b-df-gj-np-tv-z]", text), text
            assert not re.search(r"\b([a-z]+) \1\b", text), text
            assert not re.search(r"(?<![\d/*+-] )\b1 (?!of\b|m[gL]\b|k[gm]\b)\w+s\b", text), text


@pytest.mark.parametrize("name", FAMILIES)
def test_reasoning_is_terse(name: str) -> None:
    """A small model is trained on it."""
    family, rng = FAMILIES[name], random.Random(1)
    lengths = [
        len(" ".join(family.render(form, domain, 0, rng).steps).split())
        for depth in (1, 2)
        for form in drawn(name, depth, 40)
        for domain in DOMAINS
    ]
    assert sum(lengths) / len(lengths) <= 45
    assert max(lengths) <= 90


@pytest.mark.parametrize(("name", "depth"), [(name, depth) for name in LOGIC for depth in (1, 2)])
def test_logical_answers_are_balanced(name: str, depth: int) -> None:
    forms = drawn(name, depth, 400)
    if "unknown" in forms[0].options:
        counts = Counter(form.answer for form in forms)
        assert stats.chisquare(list(counts.values())).pvalue > P_VALUE, counts
        assert set(counts) == {"yes", "no", "unknown"}
    else:
        places = Counter(form.options.index(form.answer) for form in forms)
        assert set(places) == set(range(len(forms[0].options)))


@pytest.mark.parametrize("name", LOGIC)
def test_entities_are_numbered_as_they_are_mentioned(name: str) -> None:
    """So renaming them gives the same form, and the split of a form does not hang on names."""
    for form in drawn(name, 2):
        data = form.data
        mentioned = {
            "ordering": lambda d: [e for a, b, _ in d["facts"] for e in (a, b)],
            "implication": lambda d: [atom for rule in d["rules"] for atom, _ in rule],
            "syllogism": lambda d: [e for _, a, b in d["facts"] for e in (a, b)],
            "branching": lambda d: range(len(d["levels"])),
        }[name](data)
        order = list(dict.fromkeys(mentioned))
        assert order == sorted(order) == list(range(len(order)))


def test_a_form_keeps_its_key_whatever_the_options() -> None:
    form = drawn("ordering", 2)[0]
    others = tuple(reversed(form.options))
    again = Form("ordering", 2, dict(reversed(form.data.items())), form.answer, others)
    assert form_key(form) == form_key(again)
    assert form_key(form) != form_key(drawn("ordering", 2)[1])


@pytest.mark.parametrize("may_be_empty", [True, False])
def test_syllogisms_are_solved_as_by_all_their_models(may_be_empty: bool) -> None:
    rng = random.Random(4)
    kinds = ("all", "no", "some")
    for _ in range(60):
        facts = [(rng.choice(kinds), *rng.sample(range(3), 2)) for _ in range(rng.choice((2, 3)))]
        facts.append((rng.choice(kinds), 2, rng.choice((0, 1))))
        query = (rng.choice(("all", "some")), *rng.sample(range(3), 2))
        expected = solve_by_crowds(facts, query, may_be_empty)
        assert solve(facts, query, may_be_empty) == expected, (facts, query)


def test_no_two_domains_share_a_name() -> None:
    for kind in ("names", "choices"):
        table = read_words("names", kind)
        counts = Counter(name.casefold() for domain in DOMAINS for name in table[domain])
        assert max(counts.values()) == 1


def test_the_only_way_through_a_tree_is_found() -> None:
    pairs = [(3, 1), (0, 1), (4, 3), (2, 1)]
    assert way(pairs, 0, 4) == [1, 0, 2] and way(pairs, 2, 2) == []
    with pytest.raises(ValueError, match="join 0 and 9"):
        way(pairs, 0, 9)


def test_nouns_take_their_number_and_article() -> None:
    assert [counted(1, "case"), counted(3, "case")] == ["1 case", "3 cases"]
    assert [counted(1, "loss|losses"), plural("loss|losses")] == ["1 loss", "losses"]
    assert [counted(4, "mL|"), every(1, "day"), every(2, "day")] == [
        "4 mL", "every day", "every 2 days",
    ]  # fmt: skip
    assert [an("electron"), an("proton")] == ["an electron", "a proton"]


FILES = sorted(Path(words.__file__).parent.glob("*.yaml"))
WRITTEN = {file.stem: yaml.safe_load(file.read_bytes()) for file in FILES}
SECTIONS = [(file, section) for file in WRITTEN for section in WRITTEN[file]]
PLACEHOLDER = re.compile(r"\{(\w*)\}")


@pytest.mark.parametrize(("file", "section"), SECTIONS)
def test_words_are_what_their_form_says(file: str, section: str) -> None:
    form = WRITTEN[file][section]["form"]
    check(read_words(file, section), dict.fromkeys(DOMAINS, form), f"{file}.yaml: {section}")


def check(found: Any, form: Any, where: str) -> None:
    """Compare words with their form, as `words` says."""
    assert isinstance(found, type(form)), where
    if isinstance(form, str):
        known = set(PLACEHOLDER.findall(form))
        assert found.strip() and set(PLACEHOLDER.findall(found)) <= known, where
    elif isinstance(form, dict):
        assert set(found) == set(form), where
        for key, inner in form.items():
            check(found[key], inner, f"{where}, {key}")
    else:
        assert len(found) == 3 if isinstance(form[0], dict) else len(found) >= len(form), where
        for place, part in enumerate(found):
            check(part, form[min(place, len(form) - 1)], f"{where}, {place + 1}")
