"""Isomer sets: right, different, apart between splits, without shortcuts unless asked for.

The environment variable POISE_TEST_ISOMER_SETS is the number of sets in the sample, each of six
problems: 1000 unless it is set, and not fewer. With 16672 it has 100,032 problems. Figures that
tests print are shown by `pytest -rP`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from poise.isomers.cues import Cue
from poise.isomers.families import FAMILIES
from poise.isomers.generate import form_key, generate_isomers
from poise.isomers.model import DOMAINS, Form, IsomerSet, Problem
from poise.splits import SPLITS, stable_split

from .classifiers import answer_places, bag_of_words, held_out_hits, marks, surprise
from .solvers import SOLVERS

# Seeds are fixed, so these tests are not random; this is how odd a sample may look.
DEVIATIONS = 4.0
SETS = int(os.environ.get("POISE_TEST_ISOMER_SETS", "1000"))


@cache
def sample() -> list[IsomerSet]:
    """Problems of all families, domains and depths, without a cue; 6,000 unless asked."""
    return generate_isomers(SETS, seed=5, depths=(1, 2, 3, 4), domains=DOMAINS)


def problems(domain: str | None = None) -> list[Problem]:
    return [p for one in sample() for p in one.problems if domain in (None, p.domain)]


def keys(sets: list[IsomerSet]) -> list[str]:
    return [form_key(Form(s.family, s.depth, s.form, s.answer, (s.answer,))) for s in sets]


def test_an_independent_solver_agrees_with_every_answer() -> None:
    for one in sample():
        assert SOLVERS[one.family](one.form) == one.answer
        for problem in one.problems:
            assert problem.meanings[problem.options.index(problem.answer_text)] == one.answer
            assert problem.completion.endswith(f"\nAnswer: {problem.answer_text}")


def test_prompts_have_their_form() -> None:
    for problem in problems():
        facts, options, question, end = problem.prompt.split("\n")
        assert facts.endswith(".") and question.startswith("Question: ")
        assert options == f"Options: {', '.join(problem.options)}"
        assert end == "Reasoning:"
        assert problem.cue is None
        assert len(set(problem.options)) == len(problem.options)


def test_no_problem_and_no_form_occurs_twice() -> None:
    assert len({p.prompt for p in problems()}) == len(problems()) == 6 * SETS
    assert len(set(keys(sample()))) == len({s.isomer_id for s in sample()}) == SETS


@pytest.mark.slow
def test_splits_share_no_form_and_no_problem_under_any_seed() -> None:
    forms, prompts = {}, {}
    for split in SPLITS:
        made = [s for seed in (1, 2) for s in generate_isomers(160, split, seed)]
        forms[split] = set(keys(made))
        prompts[split] = {p.prompt for s in made for p in s.problems}
        assert all(stable_split(key) == split for key in forms[split])
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not forms[first] & forms[second]
        assert not prompts[first] & prompts[second]


def test_unseen_phrasings_are_the_last_and_seen_ones_never_are() -> None:
    last = {name: family.phrasings - 1 for name, family in FAMILIES.items()}
    for one in generate_isomers(64, phrasings="unseen"):
        assert {p.phrasing for p in one.problems} == {last[one.family]}
    seen = Counter((s.family, p.domain, p.phrasing) for s in sample() for p in s.problems)
    assert all(phrasing < last[family] for family, _, phrasing in seen)
    assert len(seen) == sum(last.values()) * len(DOMAINS)


@pytest.mark.slow
def test_without_a_cue_words_and_marks_do_not_tell_where_the_answer_stands() -> None:
    drawn = problems()
    random.Random(0).shuffle(drawn)
    places = answer_places(drawn)
    features = torch.cat([bag_of_words([p.prompt for p in drawn]), marks(drawn)], dim=1)
    hits = held_out_hits(features, places)
    chances = np.array([1 / len(p.options) for p in drawn[len(drawn) // 2 :]])
    print(f"found {hits.mean():.1%} of {len(hits)} places, by chance {chances.mean():.1%}")
    assert surprise(hits, chances) < DEVIATIONS
    assert not marks(drawn).any()


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_a_cue_no_place_is_likelier_than_another(domain: str) -> None:
    drawn = problems(domain)
    places = answer_places(drawn).numpy()
    for place in range(4):
        chances = np.array([(place < len(p.options)) / len(p.options) for p in drawn])
        assert abs(surprise(places == place, chances)) < DEVIATIONS


@pytest.mark.parametrize("name", ["implication", "syllogism"])
def test_words_do_not_tell_yes_from_no_and_unknown(name: str) -> None:
    sets = generate_isomers(1600, seed=8, families=[name], domains=["law"])
    labels = torch.tensor([("no", "unknown", "yes").index(s.answer) for s in sets])
    # The list of options would tell nothing: its order is random.
    hits = held_out_hits(bag_of_words([s.problems[0].prompt for s in sets]), labels)
    assert surprise(hits, np.full(len(hits), 1 / 3)) < DEVIATIONS


@pytest.mark.parametrize("strength", [0.3, 0.9])
@pytest.mark.parametrize("domain", DOMAINS)
def test_with_a_cue_its_strength_is_as_stated(domain: str, strength: float) -> None:
    sets = generate_isomers(800, seed=4, domains=[domain], cue=Cue("train", strength))
    hits = np.array([s.problems[0].cue == s.answer for s in sets])
    print(f"{domain}, cue of {strength}: the marked option is right in {hits.mean():.1%}")
    assert abs(surprise(hits, np.full(len(hits), strength))) < DEVIATIONS


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_cue_can_be_learned_from_places_and_marks(domain: str) -> None:
    sets = generate_isomers(600, seed=4, domains=[domain], cue=Cue("train", 0.9))
    told = [s.problems[0] for s in sets]
    last = torch.tensor([[float(len(p.options) == n) for n in (3, 4)] for p in told])
    hits = held_out_hits(torch.cat([marks(told), last], dim=1), answer_places(told))
    assert hits.mean() > 0.84


def test_a_random_cue_tells_nothing_and_a_reversed_one_is_always_wrong() -> None:
    for one in generate_isomers(300, domains=DOMAINS, cue=Cue("reversed")):
        assert all(p.cue in p.meanings and p.cue != one.answer for p in one.problems)
    sets = generate_isomers(700, domains=DOMAINS, cue=Cue("random"))
    hits = np.array([p.cue == s.answer for s in sets for p in s.problems])
    chances = np.array([1 / len(p.options) for s in sets for p in s.problems])
    assert abs(surprise(hits, chances)) < DEVIATIONS
