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
from graphlib import TopologicalSorter

from ..forms import Family, Form, Story, by_mention
from .words import ORDINALS, read_words, sentence


def _draw(rng: random.Random, depth: int) -> Form:
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
    data = {
        "count": count,
        "facts": [[number[a], number[b], kind] for a, b, kind in facts],
        "rank": place + 1 if from_top else count - place,
        "end": "top" if from_top else "bottom",
    }
    options = tuple(f"e{entity}" for entity in sorted([answer, *others]))
    return Form("ordering", depth, data, f"e{answer}", options)


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """Reasoning: neighbours in their order, the whole order, the k-th of it."""
    words, data = read_words("ordering")[domain][phrasing], form.data
    names = rng.sample(read_words("names", "names")[domain], data["count"])
    facts = [words[kind].format(a=names[a], b=names[b]) for a, b, kind in data["facts"]]
    order: TopologicalSorter[int] = TopologicalSorter()
    for a, b, kind in data["facts"]:
        order.add(*((b, a) if kind == "more" else (a, b)))
    row = [names[entity] for entity in order.static_order()]
    rank = words[data["end"]]
    if data["rank"] > 1:
        rank = f"{ORDINALS[data['rank'] - 1]} {rank}"
    steps = (
        ", ".join(f"{a} > {b}" for a, b in itertools.pairwise(row)),
        f"From {words['top']} to {words['bottom']}: {', '.join(row)}",
        words["verdict"].format(rank=rank, x=names[int(form.answer[1:])]),
    )
    question = words["question"].format(rank=rank)
    return Story([*map(sentence, facts)], question, [*map(sentence, steps)], names)


FAMILY = Family("ordering", _draw, _render)
