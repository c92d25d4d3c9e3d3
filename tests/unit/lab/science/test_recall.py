"""Level 0: the facts, and nothing that gives them away."""

import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest
from scipy import stats

from lab.science import DOMAINS, generate, templates
from lab.science.categories import CATEGORIES
from lab.science.recall import wrong_options
from poise.question import LETTERS, Question
from poise.splits import SPLITS

EACH_DOMAIN = pytest.mark.parametrize("domain", DOMAINS)
P_VALUE = 1e-3
# Who belongs to two categories, by hand: any other double entry is a slip. "<": all of them.
SHARED = {
    "chemistry": {
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
    },
    "physics": set(),
    "biology": {"tree < plant"},
    "materials": {
        "alloy < electrical_conductor", "pure_metal < electrical_conductor",
        "polymer < electrical_insulator", "ceramic < electrical_insulator",
    },
}  # fmt: skip


@cache
def sample(domain: str) -> tuple[Question, ...]:
    return tuple(generate([domain], [0], 1200, seed=3))


def key(question: Question) -> tuple[str, frozenset[str]]:
    return question.stem, frozenset(question.options)


def longer_or_shorter(questions: list[Question], extreme) -> float:
    """How much more often than by chance the right option is extreme in length."""
    excess = 0.0
    for question in questions:
        lengths = [len(text) for text in question.options]
        longest = extreme(lengths)
        excess += (len(question.right_option) == longest) - lengths.count(longest) / 4
    return excess / len(questions)


@EACH_DOMAIN
def test_every_domain_has_many_categories_of_short_names(domain):
    assert len(templates(domain, 0)) == len(CATEGORIES[domain]) >= 10
    for category in CATEGORIES[domain]:
        assert len(set(category.members)) == len(category.members) >= 5
        for name in category.members:
            assert re.fullmatch(r"[a-z]+( [a-z]+)?", name), name


@EACH_DOMAIN
def test_categories_share_the_members_that_they_should(domain):
    found = set()
    for a, b in combinations(CATEGORIES[domain], 2):
        both = sorted(set(a.members) & set(b.members))
        if len(both) == len(a.members):
            found.add(f"{a.name} < {b.name}")
        elif len(both) == len(b.members):
            found.add(f"{b.name} < {a.name}")
        elif both:
            found.add(f"{a.name} & {b.name}: {', '.join(both)}")
    assert found == SHARED[domain]


@EACH_DOMAIN
def test_articles_fit_and_no_name_echoes_its_category(domain):
    for category in CATEGORIES[domain]:
        match = re.fullmatch(r"is (?:(an?) )?(\w+)[\w ]*", category.asks)
        vowel = category.asks.split()[-1 if match[1] is None else 2][0] in "aeio"
        assert match[1] in ("an" if vowel else "a", None), category.asks
        words = [word for word in category.asks.split() if len(word) > 2]
        names = [*category.members, *wrong_options(category, domain)]
        assert not [name for name in names if any(word in name for word in words)]


@EACH_DOMAIN
def test_doubtful_things_exist_and_are_not_members(domain):
    things = {name for category in CATEGORIES[domain] for name in category.members}
    for category in CATEGORIES[domain]:
        assert set(category.doubtful) <= things
        assert not set(category.doubtful) & set(category.members)


@EACH_DOMAIN
def test_one_option_is_in_the_category_and_none_is_doubtful(domain):
    categories = {f"Which of these {c.asks}?": c for c in CATEGORIES[domain]}
    others = {name for category in CATEGORIES[domain] for name in category.members}
    for question in sample(domain):
        category = categories[question.stem]
        assert set(question.options) & set(category.members) == {question.right_option}
        assert not set(question.options) & set(category.doubtful)
        assert set(question.options) <= others


def test_the_solution_is_the_fact_and_the_letter():
    for question in generate(levels=[0], count=100):
        fact, answer = question.solution.split("\n")
        asks = question.stem.removeprefix("Which of these ").removesuffix("?")
        assert fact == f"{question.right_option.capitalize()} {asks}."
        assert answer == f"Answer: {question.answer}"


@EACH_DOMAIN
def test_a_domain_has_a_thousand_questions_and_its_splits_share_none(domain):
    made = {
        split: {key(q) for q in generate([domain], [0], count, split)}
        for split, count in zip(SPLITS, (1000, 200, 200), strict=True)
    }
    assert [len(made[split]) for split in SPLITS] == [1000, 200, 200]
    assert not made["train"] & made["test"]
    assert not made["train"] & made["validation"]
    assert not made["validation"] & made["test"]
    again = {key(q) for q in generate([domain], [0], 1000, "train", seed=9)}
    assert not again & (made["test"] | made["validation"])


@EACH_DOMAIN
def test_letters_and_lengths_tell_nothing(domain):
    """Bound of lengths: four percentage points in a domain."""
    questions = list(sample(domain))
    counts = Counter(q.answer for q in questions)
    assert stats.chisquare([counts[letter] for letter in LETTERS]).pvalue > P_VALUE
    for extreme in (max, min):
        assert abs(longer_or_shorter(questions, extreme)) < 0.04


@EACH_DOMAIN
def test_knowing_which_names_are_often_right_helps_little(domain):
    right, shown = Counter(), Counter()
    for question in generate([domain], [0], 2000, seed=4):
        right[question.right_option] += 1
        shown.update(question.options)
    hits = [
        max(q.options, key=lambda name: (right[name] + 0.25) / (shown[name] + 1)) == q.right_option
        for q in generate([domain], [0], 200, "test")
    ]
    assert sum(hits) / len(hits) < 0.5
