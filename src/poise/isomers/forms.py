"""The shapes of logical isomers: a form without language, its story in a domain, its rows.

A `Form` is logic alone. A `Family` draws forms and renders each in the words of a domain as a
`Story`. A story written down as prompt and completion is a row; an isomer set is one row for each
domain, all of one form.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

# Domains to train on, and domains that are kept for tests out of distribution.
TRAIN_DOMAINS: tuple[str, ...] = ("mathematics", "medicine", "law", "science")
HELD_OUT_DOMAINS: tuple[str, ...] = ("logistics", "sports")
DOMAINS: tuple[str, ...] = TRAIN_DOMAINS + HELD_OUT_DOMAINS


@dataclass(frozen=True)
class Form:
    """A logical form of a family, without language, that takes `depth` steps of reasoning.

    Args:
        data: All that a solver needs, as plain JSON values; entities are numbers from 0.
        answer: The right answer in logical terms: ``"e2"`` (entity 2), ``"17"`` (a number),
            ``"yes"``, ``"no"`` or ``"unknown"``. Computed from `data`, never from a text.
        options: Different logical answers to choose from, the right one among them, in an order
            that says nothing (the order of presentation is drawn later).
    """

    family: str
    depth: int
    data: Mapping[str, Any]
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """A form in the words of a domain: whole sentences, the last of the steps reaches the answer.

    `names` are those of the entities, by their numbers.
    """

    facts: Sequence[str]
    question: str
    steps: Sequence[str]
    names: Sequence[str] = ()

    def text(self, option: str) -> str:
        """A logical option in this domain: an entity's name, a number or truth word as it is."""
        return self.names[int(option[1:])] if option[0] == "e" else option


@dataclass(frozen=True)
class Family:
    """A kind of logic.

    Args:
        draw: (random numbers, depth) -> a random form.
        render: (form, domain, number of the phrasing, random numbers) -> the form in the domain's
            words. The random numbers choose names and the like, never the logic.
        depths: Depths that it can draw, from 1.
        phrasings: Ways of putting a form that each domain has.
    """

    name: str
    draw: Callable[[random.Random, int], Form]
    render: Callable[[Form, str, int, random.Random], Story]
    depths: range = range(1, 5)
    phrasings: int = 3


def by_mention(entities: Iterable[int]) -> dict[int, int]:
    """New numbers of entities in the order of their mention, so that renamed forms are the same."""
    return {entity: number for number, entity in enumerate(dict.fromkeys(entities))}


def way(pairs: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Places of the pairs that lead from start to end: the only way through a tree of pairs.

    Raises:
        ValueError: the pairs leave them apart.
    """
    ways: list[tuple[int, list[int]]] = [(start, [])]
    for here, places in ways:
        if here == end:
            return places
        for place, (a, b) in enumerate(pairs):
            if here in (a, b) and place not in places:
                ways.append((b if here == a else a, [*places, place]))
    raise ValueError(f"expected pairs that join {start} and {end}, found them apart")
