"""Isomer sets are generated as they are asked for, and what cannot be is refused."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from poise.isomers.cues import KINDS, Cue
from poise.isomers.families import FAMILIES
from poise.isomers.forms import DOMAINS, HELD_OUT_DOMAINS, TRAIN_DOMAINS, Family, Form
from poise.isomers.generate import generate_isomers

from .classifiers import shown_options


def test_the_same_arguments_give_the_same_sets() -> None:
    first = generate_isomers(24, "test", 3)
    assert first == generate_isomers(24, "test", 3)
    assert first != generate_isomers(24, "test", 4)


def test_families_and_depths_are_balanced() -> None:
    counts = Counter((r["family"], r["depth"]) for r in generate_isomers(163, domains=["law"]))
    assert set(counts) == {(name, depth) for name in FAMILIES for depth in (1, 2)}
    assert set(counts.values()) == {10, 11}


def test_another_cue_leaves_the_stories_alone() -> None:
    plain = generate_isomers(30, seed=2)
    for mode in ("train", "random", "reversed"):
        for one, other in zip(plain, generate_isomers(30, seed=2, cue=Cue(mode)), strict=True):
            assert one["prompt"].split("\nOptions")[0] == other["prompt"].split("\nOptions")[0]
            assert one["completion"] == other["completion"]
            assert other["cue"] in other["meanings"]


# Domain -> the kind of its mark.
OWN = {
    "mathematics": "first",
    "medicine": "last",
    "law": "word",
    "science": "remark",
    "logistics": "quotes",
    "sports": "number",
}


@pytest.mark.parametrize(
    ("domain", "kind", "marks"),
    [*((d, kind, {}) for d, kind in OWN.items()), *(("law", k, {"law": k}) for k in KINDS)],
)
def test_a_domain_has_a_mark_of_its_own_or_the_one_that_is_chosen(
    domain: str, kind: str, marks: dict[str, str]
) -> None:
    for row in generate_isomers(24, domains=[domain], cue=Cue("random", marks=marks)):
        place, shown, look = row["meanings"].index(row["cue"]), shown_options(row), KINDS[kind]
        option, others = row["options"][place], shown[:place] + shown[place + 1 :]
        assert others == [o for o in row["options"] if o != option]
        if isinstance(look, int):
            assert place == look % len(shown) and shown[place] == option
        else:
            assert shown[place] == look.format(x=option)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "on"}, "cue: expected one of off, train, random, reversed, found 'on'"),
        ({"mode": "train", "strength": 1.1}, r"cue strength: expected a number in \[0, 1\]"),
        ({"mode": "train", "strength": -0.1}, r"cue strength: expected a number in \[0, 1\]"),
        ({"marks": {"law": "hat"}}, r"cue marks: expected domains among .* found \{'law': 'hat'\}"),
        ({"marks": {"art": "unit"}}, "cue marks: expected domains among mathematics"),
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
        ({"families": []}, "families: expected some of ordering"),
        ({"depths": (9,)}, "depths: expected some of"),
        ({"depths": (5,)}, r"depths: expected some of \[1, 2, 3, 4\] for the family"),
        ({"depths": (1, 1)}, "depths: expected each one once"),
        ({"domains": ["art"]}, "domains: expected some of"),
        ({"domains": "law"}, "domains: expected some of"),
        ({"phrasings": "new"}, "phrasings: expected one of seen, unseen"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_isomers(**{"count": 8} | options)


def test_a_family_that_runs_out_of_forms_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_coin(rng: random.Random, depth: int) -> Form:
        side = rng.choice(("yes", "no"))
        return Form("coin", depth, {"side": side}, side, ("no", "yes"))

    coin = Family("coin", draw_coin, lambda *_: pytest.fail("rendered"))
    monkeypatch.setitem(FAMILIES, "coin", coin)
    with pytest.raises(ValueError, match=r"expected 3 different forms of family coin and depth 1"):
        generate_isomers(3, families=["coin"], depths=[1])


@pytest.mark.parametrize("domains", [TRAIN_DOMAINS, HELD_OUT_DOMAINS, DOMAINS])
def test_a_set_has_a_row_for_each_domain(domains: tuple[str, ...]) -> None:
    assert tuple(row["domain"] for row in generate_isomers(1, domains=domains)) == domains
