"""Sequences of state changes: an amount that grows and shrinks, things that change hands.

A form's data, with ``kind`` ``"amount"``: ``start``; ``changes``, ``["add" | "remove" |
"times" | "part", n]``. With ``"holder"``: thing i starts with entity i; ``changes``, pairs of
entities that swap what they hold; ``asked``, a thing.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import equation, fill, read_words

HOLDER_COUNT = 4
# Few swaps make few different forms, so they are drawn less often.
HOLDER_SHARES = {1: 0.1, 2: 0.25, 3: 0.4, 4: 0.5, 5: 0.5}
OPERATORS = {"add": "+", "remove": "-", "times": "*", "part": "/"}


def _draw(rng: random.Random, depth: int) -> Form:
    if rng.random() < HOLDER_SHARES[depth]:
        return _draw_holder(rng, depth)
    return draw_form(rng, "state_changes", depth, lambda rng: _attempt(rng, depth))


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    if form.data["kind"] == "holder":
        return _render_holder(form, domain, phrasing, rng)
    words = read_words("state_changes", "amounts")[domain][phrasing]
    amount = form.data["start"]
    facts, steps = [fill(words["start"], n=amount)], []
    for kind, n in form.data["changes"]:
        facts.append(fill(words[kind], n=n))
        written, amount = equation(amount, OPERATORS[kind], n)
        steps.append(fill(words["step"], sum=written))
    return Story(facts, words["ask"], steps)


def _attempt(rng: random.Random, depth: int) -> Draft | None:
    path = [rng.randint(4, 90)]
    changes: list[list[Any]] = []
    for _ in range(depth):
        kind = rng.choices(tuple(OPERATORS), (4, 4, 1, 1))[0]
        n = rng.randint(2, 40) if kind in ("add", "remove") else rng.randint(2, 4)
        if kind == "part" and path[-1] % n:
            return None
        path.append(equation(path[-1], OPERATORS[kind], n)[1])
        changes.append([kind, n])
    if not all(4 <= amount <= 99 for amount in path) or len(set(path)) < len(path):
        return None
    data = {"kind": "amount", "start": path[0], "changes": changes}
    return Draft(data, path[-1], {path[0], *(n for _, n in changes)})


def _draw_holder(rng: random.Random, depth: int) -> Form:
    """Each swap takes in the holder of what is asked with a chance of one half.

    So the answer is as likely the entity that is mentioned last as any other.
    """
    asked = holder = rng.randrange(HOLDER_COUNT)
    changes: list[list[int]] = []
    for _ in range(depth):
        involved = rng.random() < 0.5
        pairs = [
            list(pair)
            for pair in itertools.permutations(range(HOLDER_COUNT), 2)
            if (holder in pair) == involved and set(pair) != set(*changes[-1:])
        ]
        changes.append(rng.choice(pairs))
        holder = _after(holder, changes[-1])
    data = {"kind": "holder", "changes": changes, "asked": asked}
    options = tuple(f"e{entity}" for entity in range(HOLDER_COUNT))
    return Form("state_changes", depth, data, f"e{holder}", options)


def _after(holder: int, pair: list[int]) -> int:
    return pair[1 - pair.index(holder)] if holder in pair else holder


def _render_holder(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    words = read_words("state_changes", "holders")[domain][phrasing]
    names = rng.sample(read_words("names", "names")[domain], HOLDER_COUNT)
    things = rng.sample(words["things"], HOLDER_COUNT)
    thing, holder = things[form.data["asked"]], form.data["asked"]
    facts = [fill(words["start"], a=a, thing=b) for a, b in zip(names, things, strict=True)]
    steps = []
    for pair in form.data["changes"]:
        facts.append(fill(words["swap"], a=names[pair[0]], b=names[pair[1]]))
        after = _after(holder, pair)
        template = words["stays"] if after == holder else words["moves"]
        steps.append(fill(template, thing=thing, a=names[holder], b=names[after]))
        holder = after
    return Story(facts, fill(words["ask"], thing=thing), steps, names)


FAMILY = Family("state_changes", _draw, _render, range(1, 6))
