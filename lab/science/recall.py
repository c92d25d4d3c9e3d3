"""Level 0 of all four domains: a fact to recall, nothing to compute.

The options are names, so a model can answer with a name that it knows, before it has learnt to
bind letters to options. A wrong option is as long as a member of the asked category drawn at
random, so that lengths tell nothing.

Splits share no question, but they share facts: another split asks for the same thing among other
options.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from random import Random

from .categories import CATEGORIES, Category
from .drafts import choice
from .registry import Draft, template


def wrong_options(category: Category, domain: str) -> dict[str, float]:
    """The things of a domain that are surely not in a category, and that do not echo its name.

    Returns:
        Thing -> weight. All categories weigh the same, whatever their size: then no thing stands
        among the options much more often than it is the right one.
    """
    words = [word for word in category.asks.split() if len(word) > 2]
    never = {*category.members, *category.doubtful}
    weights: dict[str, float] = {}
    for other in CATEGORIES[domain]:
        for thing in other.members:
            if thing not in never and not any(word in thing for word in words):
                weights[thing] = weights.get(thing, 0.0) + 1 / len(other.members)
    return weights


def recall(category: Category, wrong: Mapping[str, float], rng: Random) -> Draft:
    """Which of four things is in the category?"""
    right = rng.choice(category.members)
    others: list[str] = []
    while len(others) < 3:
        length = len(rng.choice(category.members))
        others.append(_about_as_long(length, wrong, others, rng))
    fact = f"{right.capitalize()} {category.asks}."
    return choice(
        f"Which of these {category.asks}?", (right, *sorted(others)), right, others, [fact]
    )


def _about_as_long(length: int, wrong: Mapping[str, float], taken: list[str], rng: Random) -> str:
    """Draw one of the free things whose length is nearest."""
    free = [thing for thing in wrong if thing not in taken]
    gap = min(abs(len(thing) - length) for thing in free)
    near = [thing for thing in free if abs(len(thing) - length) == gap]
    return rng.choices(near, [wrong[thing] for thing in near])[0]


for _domain, _categories in CATEGORIES.items():
    for _category in _categories:
        template(_domain, f"recall_{_category.name}", 0)(
            partial(recall, _category, wrong_options(_category, _domain))
        )
