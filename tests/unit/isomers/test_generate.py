"""Isomer sets are generated as they are asked for, and what cannot be is refused."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from poise.isomers.cues import KINDS, Cue
from poise.isomers.families import FAMILIES
from poise.isomers.generate import draw_forms, generate_isomers, render_form
from poise.isomers.model import DOMAINS, HELD_OUT_DOMAINS, TRAIN_DOMAINS, Family, Form, Story
from poise.isomers.rows import isomer_tests

from .classifiers import shown_options


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


def test_a_domain_can_have_a_mark_of_another_kind() -> None:
    told = {
        kind: generate_isomers(30, domains=["law"], cue=Cue("random", marks={"law": kind}))
        for kind in KINDS
    }
    for kind, sets in told.items():
        for problem in (one.problems[0] for one in sets):
            place, shown = problem.meanings.index(str(problem.cue)), shown_options(problem)
            look = KINDS[kind]
            if isinstance(look, int):
                assert place == look % len(shown) and shown == list(problem.options)
            else:
                assert shown[place] == look.format(x=problem.options[place])
                assert len(shown[place]) > len(problem.options[place])
                if kind == "length":
                    assert shown[place] == max(shown, key=len)
    assert "(1 unit)" in told["unit"][0].problems[0].prompt
    [row, *_] = isomer_tests(1, domains=["law"], marks={"law": "unit"})
    assert "(1 unit)" in row["prompt"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "on"}, "cue: expected one of off, train, random, reversed, found 'on'"),
        ({"mode": "train", "strength": 1.1}, r"cue strength: expected a number in \[0, 1\]"),
        ({"marks": {"law": "hat"}}, r"cue marks: expected domains among .* found \{'law': 'hat'\}"),
        ({"marks": {"art": "unit"}}, "cue marks: expected domains among mathematics"),
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


def draw_coin(rng: random.Random, depth: int) -> Form:
    side = rng.choice(("yes", "no"))
    return Form("coin", depth, {"side": side}, side, ("no", "yes"))


def render_coin(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    return Story(("A coin fell.",), "How?", ("So.",), dict.fromkeys(form.options, "same"))


# A family with two forms.
COIN = Family("coin", draw_coin, render_coin, range(1, 2))


def test_a_family_that_runs_out_of_forms_says_so() -> None:
    with pytest.raises(ValueError, match=r"expected 3 different forms of family coin and depth 1"):
        draw_forms(3, "train", 0, [COIN], [1])
    with pytest.raises(ValueError, match=r"depths: expected some of \[1\] for the family coin"):
        draw_forms(3, "train", 0, [COIN], [2])


def test_options_with_one_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poise.isomers.generate.FAMILIES", {"coin": COIN})
    with pytest.raises(ValueError, match="coin in law: expected options with different texts"):
        render_form(COIN.draw(random.Random(0), 1), ["law"])


def test_domains_are_told_as_asked() -> None:
    [one] = generate_isomers(1, domains=HELD_OUT_DOMAINS)
    assert tuple(p.domain for p in one.problems) == HELD_OUT_DOMAINS
    assert tuple(p.domain for p in generate_isomers(1)[0].problems) == TRAIN_DOMAINS
