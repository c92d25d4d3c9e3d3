"""Orderings: "a is longer than b" some times over; who is the k-th?

Depth d puts d + 3 things in a row. Every pair of neighbours is stated, in random order and in
either direction, so the order is total; at times one more comparison is stated that follows from
the others.

``data``: ``count`` things; ``facts`` as ``[a, b, "more" | "less"]``; ``rank`` k from 1,
counted from ``end``: ``"top"`` or ``"bottom"``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from ..forms import Family, Form, Story, by_mention
from .words import ORDINALS, draw_names, read_words, sentence


def draw(rng: random.Random, depth: int) -> Form:
    """A random order of depth + 3 things, numbered as they are mentioned."""
    count = depth + 3
    pairs = list(itertools.pairwise(range(count)))
    if rng.random() < 0.7:
        distant = [(a, b) for a, b in itertools.combinations(range(count), 2) if b - a > 1]
        pairs.append(rng.choice(distant))
    rng.shuffle(pairs)
    facts = [(a, b, "more") if rng.random() < 0.5 else (b, a, "less") for a, b in pairs]
    number = by_mention(entity for a, b, _ in facts for entity in (a, b))
    place = rng.randrange(count)
    from_top = place < (count - 1) / 2 or (2 * place == count - 1 and rng.random() < 0.5)
    answer = number[place]
    others = rng.sample([entity for entity in range(count) if entity != answer], 3)
    return Form(
        family="ordering",
        depth=depth,
        data={
            "count": count,
            "facts": [[number[a], number[b], kind] for a, b, kind in facts],
            "rank": place + 1 if from_top else count - place,
            "end": "top" if from_top else "bottom",
        },
        answer=f"e{answer}",
        options=tuple(f"e{entity}" for entity in sorted([answer, *others])),
    )


def render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """Reasoning: neighbours in their order, the whole order, the k-th of it."""
    words, data = read_words("ordering")[domain][phrasing], form.data
    names = draw_names(domain, data["count"], rng)
    order = _sorted(data["facts"])
    rank = _rank(words, data["rank"], data["end"])
    neighbours = [f"{names[a]} > {names[b]}" for a, b in itertools.pairwise(order)]
    row = ", ".join(names[entity] for entity in order)
    return Story(
        facts=tuple(
            sentence(words[kind].format(a=names[a], b=names[b])) for a, b, kind in data["facts"]
        ),
        question=words["question"].format(rank=rank),
        steps=(
            f"{', '.join(neighbours)}.",
            f"From {words['top']} to {words['bottom']}: {row}.",
            sentence(words["verdict"].format(rank=rank, x=names[int(form.answer[1:])])),
        ),
        names={option: names[int(option[1:])] for option in form.options},
    )


def _sorted(facts: Sequence[Sequence[Any]]) -> list[int]:
    """Entities from the most to the least."""
    order: TopologicalSorter[int] = TopologicalSorter()
    for a, b, kind in facts:
        high, low = (a, b) if kind == "more" else (b, a)
        order.add(low, high)
    return list(order.static_order())


def _rank(words: Mapping[str, str], rank: int, end: str) -> str:
    superlative = words[end]
    return superlative if rank == 1 else f"{ORDINALS[rank - 1]} {superlative}"


FAMILY = Family("ordering", draw, render)
