"""Isomer sets: right, different, apart between splits, without shortcuts unless asked for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from poise.data.isomers.cues import Cue
from poise.data.isomers.families import FAMILIES
from poise.data.isomers.generate import draw_forms, generate_isomers
from poise.data.isomers.model import (
    DOMAINS,
    HELD_OUT_DOMAINS,
    TRAIN_DOMAINS,
    Form,
    IsomerSet,
    Problem,
    Story,
)
from poise.data.isomers.tell import form_key, tell_form
from poise.data.splits import SPLITS, stable_split

from .classifiers import (
    answer_places,
    bag_of_words,
    held_out_hits,
    marks,
    shown_options,
    surprise,
)
from .solvers import SOLVERS

# Seeds are fixed, so these tests are not random; this is how odd a sample may look.
DEVIATIONS = 4.0


@cache
def sample() -> list[IsomerSet]:
    """6,000 problems of all families, domains and depths, without a cue."""
    return generate_isomers(1000, seed=5, depths=(1, 2, 3, 4), domains=DOMAINS)


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
    assert len({p.prompt for p in problems()}) == len(problems()) == 6000
    assert len(set(keys(sample()))) == len({s.isomer_id for s in sample()}) == 1000


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


def test_the_same_arguments_give_the_same_sets() -> None:
    first = generate_isomers(24, "test", 3)
    assert first == generate_isomers(24, "test", 3)
    assert first != generate_isomers(24, "test", 4)


def test_families_and_depths_are_balanced() -> None:
    counts = Counter((s.family, s.depth) for s in generate_isomers(163))
    assert set(counts) == {(name, depth) for name in FAMILIES for depth in (1, 2)}
    assert set(counts.values()) == {10, 11}


def test_another_cue_leaves_the_stories_alone() -> None:
    plain = generate_isomers(30, seed=2)
    for mode in ("train", "random", "reversed"):
        cued = generate_isomers(30, seed=2, cue=Cue(mode))
        for one, other in zip(plain, cued, strict=True):
            for p, q in zip(one.problems, other.problems, strict=True):
                assert p.prompt.split("\nOptions")[0] == q.prompt.split("\nOptions")[0]
                assert p.completion == q.completion
                assert q.cue in q.meanings


def test_unseen_phrasings_are_the_last_and_seen_ones_never_are() -> None:
    last = {name: family.phrasings - 1 for name, family in FAMILIES.items()}
    for one in generate_isomers(64, phrasings="unseen"):
        assert {p.phrasing for p in one.problems} == {last[one.family]}
    seen = Counter((s.family, p.domain, p.phrasing) for s in sample() for p in s.problems)
    assert all(phrasing < last[family] for family, _, phrasing in seen)
    assert len(seen) == sum(last.values()) * len(DOMAINS)


def test_without_a_cue_words_and_marks_do_not_tell_where_the_answer_stands() -> None:
    drawn = problems()
    random.Random(0).shuffle(drawn)
    places = answer_places(drawn)
    features = torch.cat([bag_of_words([p.prompt for p in drawn]), marks(drawn)], dim=1)
    hits = held_out_hits(features, places)
    chances = np.array([1 / len(p.options) for p in drawn[len(drawn) // 2 :]])
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


def test_each_domain_has_a_mark_of_its_own() -> None:
    for one in generate_isomers(40, domains=DOMAINS, cue=Cue("random")):
        told = {p.domain: p for p in one.problems}
        for domain, problem in told.items():
            place, shown = problem.meanings.index(str(problem.cue)), shown_options(problem)
            option = problem.options[place]
            expected = {
                "mathematics": option,
                "medicine": option,
                "law": f"the said {option}",
                "science": f"{option} (as recorded)",
                "logistics": f'"{option}"',
                "sports": f"{option} #7",
            }
            assert shown[place] == expected[domain]
            assert shown[:place] + shown[place + 1 :] == [o for o in problem.options if o != option]
        assert told["mathematics"].meanings[0] == told["mathematics"].cue
        assert told["medicine"].meanings[-1] == told["medicine"].cue


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "on"}, "cue: expected one of off, train, random, reversed, found 'on'"),
        ({"mode": "train", "strength": 1.1}, r"cue strength: expected a number in \[0, 1\]"),
        ({"mode": "train", "strength": -0.1}, r"cue strength: expected a number in \[0, 1\]"),
    ],
)
def test_wrong_cues_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cue(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"split": "dev"}, "split: expected one of train"),
        ({"families": ["rate"]}, "families: expected some of ordering"),
        ({"depths": (9,)}, "depths: expected some of"),
        ({"depths": ()}, "depths: expected some of"),
        ({"depths": (1, 1)}, "depths: expected each one once"),
        ({"domains": ["art"]}, "domains: expected some of"),
        ({"domains": "law"}, "domains: expected some of"),
        ({"phrasings": "new"}, "phrasings: expected one of seen, unseen"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_isomers(**{"count": 4} | options)


class Coin:
    """A family with two forms."""

    name = "coin"
    depths = range(1, 2)
    phrasings = 3

    def draw(self, rng: random.Random, depth: int) -> Form:
        side = rng.choice(("yes", "no"))
        return Form(self.name, depth, {"side": side}, side, ("no", "yes"))

    def tell(self, form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
        names: Mapping[str, str] = {option: "same" for option in form.options}
        return Story(("A coin fell.",), "How?", ("So.",), names)


def test_a_family_that_runs_out_of_forms_says_so() -> None:
    with pytest.raises(ValueError, match=r"expected 3 different forms of family coin and depth 1"):
        draw_forms(3, "train", 0, [Coin()], [1])
    with pytest.raises(ValueError, match=r"depths: expected some of \[1\] for the family coin"):
        draw_forms(3, "train", 0, [Coin()], [2])


def test_options_with_one_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    coin = Coin()
    monkeypatch.setattr("poise.data.isomers.tell.FAMILIES", {"coin": coin})
    with pytest.raises(ValueError, match="coin in law: expected options with different texts"):
        tell_form(coin.draw(random.Random(0), 1), ["law"])


def test_domains_are_told_as_asked() -> None:
    [one] = generate_isomers(1, domains=HELD_OUT_DOMAINS)
    assert tuple(p.domain for p in one.problems) == HELD_OUT_DOMAINS
    assert tuple(p.domain for p in generate_isomers(1)[0].problems) == TRAIN_DOMAINS
