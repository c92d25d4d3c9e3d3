"""Facts of chemistry: balance, disjoint splits, and nothing that gives the answer away."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Any

import pytest
from scipy import stats

from lab.tasks.chemistry import CATEGORIES, Question, generate, load
from poise.rewards import LETTERS
from poise.splits import SPLITS

# Who belongs to two categories, by hand: any other double entry is a slip. "<": all of them.
SHARED = {
    "noble_gas < chemical_element", "halogen < chemical_element", "metal < chemical_element",
    "alkali_metal < chemical_element", "alkaline_earth_metal < chemical_element",
    "transition_metal < chemical_element", "alkali_metal < metal",
    "alkaline_earth_metal < metal", "transition_metal < metal",
    "noble_gas < gas_at_room_temperature",
    "halogen & gas_at_room_temperature: chlorine, fluorine",
    "chemical_element & gas_at_room_temperature: argon, chlorine, fluorine, helium, hydrogen, "
    "krypton, neon, nitrogen, oxygen, radon, xenon",
    "alkaline & gas_at_room_temperature: ammonia",
    "hydrocarbon & gas_at_room_temperature: acetylene, butane, ethane, ethylene, methane, "
    "propane, propylene",
}  # fmt: skip


@cache
def sample() -> tuple[Question, ...]:
    return tuple(generate(1200, seed=3))


def key(question: Question) -> tuple[str, frozenset[str]]:
    return question.stem, frozenset(question.options)


def test_questions_stay_the_same_over_releases() -> None:
    """Result lines name no questions: a change here would change what they mean."""
    assert [question.id for question in generate(4)] == [
        "chemistry-recall_noble_gas-7ee0950ba8",
        "chemistry-recall_transition_metal-68159adad7",
        "chemistry-recall_acidic-f3f8ad6aca",
        "chemistry-recall_chemical_element-97f6ddc9c4",
    ]
    assert generate(60, "test", 3) == generate(60, "test", 3) != generate(60, "test", 4)


def test_categories_have_short_names_and_share_the_members_that_they_should() -> None:
    found = set()
    for category in CATEGORIES:
        assert len(set(category.members)) == len(category.members) >= 5
        assert all(re.fullmatch(r"[a-z]+( [a-z]+)?", name) for name in category.members)
        assert set(category.doubtful) <= {m for other in CATEGORIES for m in other.members}
        assert not set(category.doubtful) & set(category.members)
    for a, b in combinations(CATEGORIES, 2):
        first, second = (c.name.removeprefix("recall_") for c in (a, b))
        both = sorted(set(a.members) & set(b.members))
        if len(both) == len(a.members):
            found.add(f"{first} < {second}")
        elif len(both) == len(b.members):
            found.add(f"{second} < {first}")
        elif both:
            found.add(f"{first} & {second}: {', '.join(both)}")
    assert found == SHARED


def test_articles_fit_and_no_name_echoes_its_category() -> None:
    for category in CATEGORIES:
        match = re.fullmatch(r"is (?:(an?) )?(\w+)[\w ]*", category.asks)
        assert match
        vowel = category.asks.split()[-1 if match[1] is None else 2][0] in "aeio"
        assert match[1] in ("an" if vowel else "a", None), category.asks
        words = [word for word in category.asks.split() if len(word) > 2]
        names = [*category.members, *category.wrong]
        assert not [name for name in names if any(word in name for word in words)]


def test_one_option_is_in_the_category_none_is_doubtful_and_the_fact_is_true() -> None:
    categories = {f"Which of these {c.asks}?": c for c in CATEGORIES}
    for question in sample():
        category = categories[question.stem]
        assert set(question.options) & set(category.members) == {question.right_option}
        assert not set(question.options) & set(category.doubtful)
        assert question.fact == f"{question.right_option.capitalize()} {category.asks}."


def test_there_are_a_thousand_questions_and_splits_share_none_under_any_seed() -> None:
    counts = (1000, 200, 200)
    made = [{key(q) for q in generate(*x)} for x in zip(counts, SPLITS, strict=True)]
    assert [len(questions) for questions in made] == [*counts]
    made[0] |= {key(q) for q in generate(1000, "train", seed=9)}
    assert not any(a & b for a, b in combinations(made, 2))


def test_categories_and_letters_are_balanced() -> None:
    for counts in (Counter(q.template for q in sample()), Counter(q.answer for q in sample())):
        assert max(counts.values()) - min(counts.values()) <= 1
    extra = {generate(1, seed=seed)[0].template for seed in range(40)}
    assert len(extra) > 5  # who gets the odd one is drawn


@pytest.mark.parametrize("extreme", [max, min])
def test_letters_and_lengths_tell_nothing(extreme: Callable[..., int]) -> None:
    """Bound of lengths: four percentage points."""
    counts = Counter(question.answer for question in sample())
    assert stats.chisquare([counts[letter] for letter in LETTERS]).pvalue > 1e-3
    excess = 0.0
    for question in sample():
        lengths = [len(text) for text in question.options]
        end = extreme(lengths)
        excess += (len(question.right_option) == end) - lengths.count(end) / 4
    assert abs(excess / len(sample())) < 0.04


def test_knowing_which_names_are_often_right_helps_little() -> None:
    right, shown = Counter[str](), Counter[str]()
    for question in generate(2000, seed=4):
        right[question.right_option] += 1
        shown.update(question.options)
    hits = [
        max(q.options, key=lambda name: (right[name] + 0.25) / (shown[name] + 1)) == q.right_option
        for q in generate(200, "test")
    ]
    assert sum(hits) / len(hits) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rest": "alchemy"}, "expected the domain chemistry or none, found 'alchemy'"),
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"count": 1000}, r"in split 'train', found \d+; lower the count"),
        ({"split": "dev"}, "split: expected one of train, validation, test, found 'dev'"),
        ({"style": "fancy"}, "style: expected one of"),
    ],
)
def test_bad_arguments_are_named(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.tasks.chemistry.MAX_TRIES", 1)
    with pytest.raises(ValueError, match=message):
        load(**{"rest": "", "split": "train"} | options)
