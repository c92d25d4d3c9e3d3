"""Balance, determinism, disjoint splits, and nothing that gives the answer away."""

import math
from collections import Counter
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from scipy import stats

from lab.science import DOMAINS, TEMPLATES, generate, registry, templates
from lab.science.drafts import choice
from poise.question import LETTERS, Question
from poise.splits import SPLITS
from tests.unit.lab.science.oracles import TEXT_ORACLES, numbers

# Seeds are fixed, so these tests are not random; the level says how odd a sample may look.
P_VALUE = 1e-3


@cache
def sample(domain: str) -> tuple[Question, ...]:
    return tuple(generate(domains=[domain], count=1200, seed=5))


def content(question: Question) -> tuple[str, str, frozenset[str]]:
    return question.template, question.stem, frozenset(question.options)


def numeric(domain: str) -> list[Question]:
    return [q for q in sample(domain) if q.template not in TEXT_ORACLES]


def test_the_same_arguments_give_the_same_questions():
    first = generate(count=60, split="test", seed=3)
    assert first == generate(count=60, split="test", seed=3)
    assert first != generate(count=60, split="test", seed=4)


def test_questions_stay_the_same_over_releases():
    """Records of runs name questions by id: a change here is a new version of the data set."""
    assert [q.id for q in generate(count=4, seed=0)] == EXPECTED_IDS


def test_order_of_domains_and_levels_does_not_matter():
    assert generate(domains=["physics", "biology"], levels=[2, 1], count=20) == generate(
        domains=["biology", "physics"], levels=[1, 2], count=20
    )


@pytest.mark.slow
def test_splits_share_no_question_under_any_seed():
    seen = {
        split: {
            key
            for seed in range(3)
            for question in generate(count=280, split=split, seed=seed)
            for key in [(question.template, question.stem, tuple(sorted(question.options)))]
        }
        for split in SPLITS
    }
    stems = {
        split: {(t, s) for t, s, _ in keys if t not in LEVEL_ONE} for split, keys in seen.items()
    }
    for split, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not seen[split] & seen[other]
        assert not stems[split] & stems[other]
        assert len(seen[split]) >= 280


def test_a_seed_never_repeats_a_question():
    questions = generate(count=2000, seed=1)
    assert len({content(q) for q in questions}) == 2000
    assert len({q.id for q in questions}) == 2000


def test_domains_levels_templates_and_letters_are_balanced():
    questions = generate(count=801, seed=2)
    for key in ("domain", "answer"):
        counts = Counter(getattr(q, key) for q in questions)
        assert max(counts.values()) - min(counts.values()) <= 1, counts
    for domain in DOMAINS:
        inside = [q for q in questions if q.domain == domain]
        levels = Counter(q.level for q in inside)
        assert max(levels.values()) - min(levels.values()) <= 1
        for level in (1, 2, 3, 4):
            names = Counter(q.template for q in inside if q.level == level)
            assert len(names) == len(templates(domain, level))
            assert max(names.values()) - min(names.values()) <= 1


def test_odd_questions_do_not_always_go_to_the_same_domain():
    extra = {
        Counter(q.domain for q in generate(count=5, seed=s)).most_common(1)[0][0] for s in range(20)
    }
    assert len(extra) == len(DOMAINS)


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_letter_is_right_more_often(domain):
    for questions in (sample(domain), [q for q in sample(domain) if q.level == 1]):
        counts = Counter(q.answer for q in questions)
        assert stats.chisquare([counts[letter] for letter in LETTERS]).pvalue > P_VALUE


@pytest.mark.parametrize("domain", DOMAINS)
def test_letters_follow_no_order(domain):
    letters = [q.answer for q in sample(domain)]
    pairs = Counter(pairwise(letters))
    table = [[pairs[a, b] for b in LETTERS] for a in LETTERS]
    assert stats.chi2_contingency(table).pvalue > P_VALUE


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("extreme", [max, min])
def test_the_right_option_is_longest_or_shortest_as_often_as_chance(domain, extreme):
    """Bound: four percentage points, where ties count by their share."""
    expected = observed = 0.0
    for question in sample(domain):
        lengths = [len(text) for text in question.options]
        tied = lengths.count(extreme(lengths))
        expected += tied / 4
        observed += len(question.right_option) == extreme(lengths)
    assert abs(observed - expected) / len(sample(domain)) < 0.04


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_right_number_has_every_rank_alike(domain):
    ranks = Counter()
    for question in numeric(domain):
        values = sorted(numbers(text)[0] for text in question.options)
        ranks[values.index(numbers(question.right_option)[0])] += 1
    assert stats.chisquare([ranks[rank] for rank in range(4)]).pvalue > P_VALUE


def neat_relations(values: list[float]) -> list[int]:
    """For each option, how many others are a simple multiple of it."""

    def neat(ratio: float) -> bool:
        ratio = max(ratio, 1 / ratio)
        return any(math.isclose(ratio, n, rel_tol=0.006) for n in (4 / 3, 1.5, 2, 3, 4, 10))

    return [sum(neat(a / b) for b in values if a != b) for a in values]


def closeness(values: list[float]) -> list[float]:
    """For each option, how near the others are."""
    logs = [math.log(value) for value in values]
    return [-sum(abs(a - b) for b in logs) for a in logs]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("score", [neat_relations, closeness])
def test_no_guess_from_the_options_alone_finds_the_right_number(domain, score):
    """Distractors derived from the answer alone would make it the one that fits all others."""
    hits = 0.0
    questions = [q for q in numeric(domain) if "pH" not in q.stem]
    for question in questions:
        values = [numbers(text)[0] for text in question.options]
        scores = score(values)
        best = [v for v, s in zip(values, scores, strict=True) if s >= max(scores) - 1e-9]
        hits += (numbers(question.right_option)[0] in best) / len(best)
    assert 0.19 < hits / len(questions) < 0.31


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domains": ["alchemy"]}, "domains: expected some of .*chemistry.*found .*alchemy"),
        ({"domains": "physics"}, "domains: expected some of"),
        ({"domains": []}, "domains: expected some of"),
        ({"domains": ["physics", "physics"]}, "domains: expected each one once"),
        ({"levels": [5]}, "levels: expected some of"),
        ({"count": 0}, "count: expected at least 1, found 0"),
        ({"split": "dev"}, "split: expected one of train, validation, test, found 'dev'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(**arguments)


def test_an_exhausted_template_says_how_many_it_had(monkeypatch):
    monkeypatch.setattr(registry, "TEMPLATES", {})

    def coin(rng: Random) -> registry.Draft:
        side = rng.choice(["head", "tail"])
        return choice(f"What shows {side}?", [side], side, ["x", "y", "z"], ["Look."])

    for domain in DOMAINS:
        registry.template(domain, "coin", 1)(coin)
    with pytest.raises(ValueError, match=r"expected 10 .*coin in split 'train', found \d; lower"):
        generate(domains=["physics"], levels=[1], count=10)


def test_a_template_name_is_given_once():
    with pytest.raises(ValueError, match="physics/speed exists already"):
        registry.template("physics", "speed", 2)(lambda rng: None)
    with pytest.raises(ValueError, match="expected a domain of"):
        registry.template("alchemy", "gold", 2)


LEVEL_ONE = {t.name for t in TEMPLATES.values() if t.level == 1}
EXPECTED_IDS = [
    "materials-wire_resistance-fc80f7edd7",
    "physics-projectile-2944c75128",
    "biology-most_colonies-811f6b7a2a",
    "chemistry-molarity-d0211be2e0",
]
