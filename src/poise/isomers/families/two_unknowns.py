"""Two unknowns from two equations, and further unknowns that follow from them.

A form's data: ``total``, the sum of unknowns 0 and 1; ``difference``, 0 less 1, or None;
``weights``, ``[a, b, n]``: a times 0 and b times 1 is n, or None; ``solve``, 0 or 1;
``links``, ``["more" | "fewer" | "times", n]``: how unknown 2 follows from the solved one, 3
from 2. The last unknown is asked.
"""

from __future__ import annotations

import random
from typing import Any

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import an, equation, fill, plural, read_words, singular

OPERATORS = {"more": "+", "fewer": "-", "times": "*"}


def _draw(rng: random.Random, depth: int) -> Form:
    weighted = depth > 3 or (depth > 1 and rng.random() < 0.5)
    return draw_form(rng, "two_unknowns", depth, lambda rng: _attempt(rng, depth, weighted))


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    words, data = read_words("two_unknowns")[domain][phrasing], form.data
    links = read_words("two_unknowns", "links")[domain]
    things = list(words["things"])
    if domain != "mathematics":
        rng.shuffle(things)
    nouns = [plural(thing) for thing in things]
    first, second = singular(things[0]), singular(things[1])
    pair = {"A": nouns[0], "B": nouns[1], "a1": first, "b1": second}
    pair |= {"an1": an(first), "an2": an(second)}
    facts = [fill(words["total"], n=data["total"], **pair)]
    solve, known = data["solve"], nouns[data["solve"]]
    if data["weights"]:
        a, b, n = data["weights"]
        facts.append(fill(words["weights"], a=a, b=b, n=n, **pair))
        every, replaced = equation(data["total"], "*", (a, b)[1 - solve])
        off, excess = equation(max(n, replaced), "-", min(n, replaced))
        apart, gap = equation(max(a, b), "-", min(a, b))
        written, value = equation(excess, "/", gap)
        sums = {"all": every, "excess": off, "gap": apart, "x": written}
        steps = [fill(links["replaced"], A=known, B=nouns[1 - solve], **sums)]
    else:
        facts.append(fill(words["difference"], n=data["difference"], **pair))
        written, double = equation(data["total"], "+-"[solve], data["difference"])
        value = double // 2
        steps = [fill(links["half"], A=known, sum=written, x=value)]
    for (kind, n), noun in zip(data["links"], nouns[2:], strict=False):
        facts.append(fill(links[kind], n=n, A=known, B=noun))
        written, value = equation(value, OPERATORS[kind], n)
        steps.append(fill(links["then"], sum=written, A=known, B=noun))
        known = noun
    return Story(facts, fill((links if data["links"] else words)["ask"], A=known), steps)


def _attempt(rng: random.Random, depth: int, weighted: bool) -> Draft | None:
    most = 20 if weighted else 97
    x, y = rng.randint(2, most), rng.randint(2, most)
    solve = rng.randrange(2)
    data: dict[str, Any] = {"total": x + y, "difference": None, "weights": None, "solve": solve}
    if weighted:
        a, b = rng.sample(range(2, 10), 2)
        if abs(a - b) < 2:
            return None
        data["weights"] = [a, b, a * x + b * y]
    elif x - y < 2:
        return None
    else:
        data["difference"] = x - y
    path, data["links"] = [(x, y)[solve]], []
    for _ in range(depth - 1 - weighted):
        kind = rng.choice(tuple(OPERATORS))
        n = rng.randint(2, 4) if kind == "times" else rng.randint(2, 15)
        data["links"].append([kind, n])
        path.append(equation(path[-1], OPERATORS[kind], n)[1])
    stated = [x + y, data["difference"] or data["weights"][2]]
    if not all(2 <= number <= 99 for number in (*path, *stated)):
        return None
    given = {*stated, *(data["weights"] or ()), *(n for _, n in data["links"])}
    return Draft(data, path[-1], given, 1000 if data["links"] else x + y)


FAMILY = Family("two_unknowns", _draw, _render)
