"""Isomer sets: right, different, apart between splits, without shortcuts unless asked for.

The environment variable POISE_TEST_ISOMER_SETS is the number of sets in the sample, each of six
problems: 600 unless it is set, and not fewer. With 16672 it has 100,032 problems. Figures that
tests print are shown by `pytest -rP`.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from poise.isomers.cues import Cue
from poise.isomers.families import FAMILIES
from poise.isomers.forms import DOMAINS, Row
from poise.isomers.generate import generate_isomers
from poise.splits import SPLITS

from .classifiers import answer_places, bag_of_words, held_out_hits, marks, surprise
from .solvers import SOLVERS

# Seeds are fixed, so these tests are not random; this is how odd a sample may look.
DEVIATIONS = 4.0
SETS = int(os.environ.get("POISE_TEST_ISOMER_SETS", "600"))


@cache
def sample() -> list[Row]:
    """Problems of all families, domains and depths, without a cue."""
    return generate_isomers(SETS, seed=5, depths=(1, 2, 3, 4), domains=DOMAINS)


@cache
def cued(strength: float) -> list[Row]:
    return generate_isomers(500, seed=4, domains=DOMAINS, cue=Cue("train", strength))


def of(rows: list[Row], domain: str) -> list[Row]:
    return [row for row in rows if row["domain"] == domain]


def test_a_row_says_what_its_form_means() -> None:
    for row in sample():
        if row["domain"] == "law" and row["depth"] < 3:
            assert SOLVERS[row["family"]](json.loads(row["form"])) == row["answer"]
        assert row["meanings"][row["options"].index(row["answer_text"])] == row["answer"]
        assert row["completion"].endswith(f"\nAnswer: {row['answer_text']}")


def test_prompts_have_their_form() -> None:
    for row in sample():
        facts, options, question, end = row["prompt"].split("\n")
        assert facts.endswith(".") and question.startswith("Question: ")
        assert options == f"Options: {', '.join(row['options'])}"
        assert end == "Reasoning:"
        assert row["cue"] is None
        assert len(set(row["options"])) == len(row["options"])


def test_no_problem_and_no_form_occurs_twice() -> None:
    assert len({row["prompt"] for row in sample()}) == len(sample()) == 6 * SETS
    forms = {(row["family"], row["form"]) for row in sample()}
    assert len(forms) == len({row["isomer_id"] for row in sample()}) == SETS


@pytest.mark.slow
def test_splits_share_no_form_and_no_problem_under_any_seed() -> None:
    forms, prompts = [], []
    for split in SPLITS:
        rows = [row for seed in (1, 2) for row in generate_isomers(160, split, seed)]
        forms.append({(row["family"], row["form"]) for row in rows})
        prompts.append({row["prompt"] for row in rows})
    for found in (forms, prompts):
        assert len(set.union(*found)) == sum(map(len, found))


def test_unseen_phrasings_are_the_last_and_seen_ones_never_are() -> None:
    last = {name: family.phrasings - 1 for name, family in FAMILIES.items()}
    for row in generate_isomers(64, phrasings="unseen"):
        assert row["phrasing"] == last[row["family"]]
    seen = {(row["family"], row["domain"], row["phrasing"]) for row in sample()}
    assert all(phrasing < last[family] for family, _, phrasing in seen)
    assert len(seen) == sum(last.values()) * len(DOMAINS)


@pytest.mark.slow
def test_without_a_cue_words_and_marks_do_not_tell_where_the_answer_stands() -> None:
    drawn = list(sample())
    random.Random(0).shuffle(drawn)
    features = torch.cat([bag_of_words([row["prompt"] for row in drawn]), marks(drawn)], dim=1)
    hits = held_out_hits(features, answer_places(drawn))
    chances = np.array([1 / len(row["options"]) for row in drawn[len(drawn) // 2 :]])
    print(f"found {hits.mean():.1%} of {len(hits)} places, by chance {chances.mean():.1%}")
    assert surprise(hits, chances) < DEVIATIONS
    assert not marks(drawn).any()


@pytest.mark.parametrize("domain", DOMAINS)
def test_without_a_cue_no_place_is_likelier_than_another(domain: str) -> None:
    drawn = of(sample(), domain)
    places, counts = answer_places(drawn).numpy(), Counter(len(row["options"]) for row in drawn)
    for place in range(4):
        chances = np.array([(place < n) / n for n in counts.elements()])
        assert abs(surprise(places == place, chances)) < DEVIATIONS


@pytest.mark.parametrize("name", ["implication", "syllogism"])
def test_words_do_not_tell_yes_from_no_and_unknown(name: str) -> None:
    rows = generate_isomers(1000, seed=8, families=[name], domains=["law"])
    labels = torch.tensor([("no", "unknown", "yes").index(row["answer"]) for row in rows])
    # The list of options would tell nothing: its order is random.
    hits = held_out_hits(bag_of_words([row["prompt"] for row in rows]), labels)
    assert surprise(hits, np.full(len(hits), 1 / 3)) < DEVIATIONS


@pytest.mark.parametrize("strength", [0.3, 0.9])
def test_with_a_cue_its_strength_is_as_stated(strength: float) -> None:
    for domain in DOMAINS:
        hits = np.array([row["cue"] == row["answer"] for row in of(cued(strength), domain)])
        print(f"{domain}, cue of {strength}: the marked option is right in {hits.mean():.1%}")
        assert abs(surprise(hits, np.full(len(hits), strength))) < DEVIATIONS


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_cue_can_be_learned_from_places_and_marks(domain: str) -> None:
    rows = of(cued(0.9), domain)
    last = torch.tensor([[float(len(row["options"]) == n) for n in (3, 4)] for row in rows])
    hits = held_out_hits(torch.cat([marks(rows), last], dim=1), answer_places(rows))
    assert hits.mean() > 0.84


def test_a_random_cue_tells_nothing_and_a_reversed_one_is_always_wrong() -> None:
    for row in generate_isomers(100, domains=DOMAINS, cue=Cue("reversed")):
        assert row["cue"] in row["meanings"] and row["cue"] != row["answer"]
    rows = generate_isomers(300, domains=DOMAINS, cue=Cue("random"))
    hits = np.array([row["cue"] == row["answer"] for row in rows])
    chances = np.array([1 / len(row["options"]) for row in rows])
    assert abs(surprise(hits, chances)) < DEVIATIONS
