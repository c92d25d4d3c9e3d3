"""Two unknowns from two equations, and further unknowns that follow from them.

A form's data: ``total``, the sum of unknowns 0 and 1; ``difference``, 0 less 1, or None;
``weights``, ``[a, b, n]``: a times 0 and b times 1 is n, or None; ``solve``, 0 or 1;
``links``, ``["more" | "fewer" | "times", n]``: how unknown 2 follows from the solved one, 3
from 2. The last unknown is asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import an, fill, plural, read_words, singular

Link = tuple[str, int]
OPERATORS = {"more": "+", "fewer": "-", "times": "*"}


def draw(rng: random.Random, depth: int) -> Form:
    """A random form."""
    weighted = depth > 3 or (depth > 1 and rng.random() < 0.5)
    return draw_form(rng, "two_unknowns", depth, lambda rng: _attempt(rng, depth, weighted))


def render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """The form in a domain's words."""
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
    if data["weights"]:
        a, b, n = data["weights"]
        facts.append(fill(words["weights"], a=a, b=b, n=n, **pair))
    else:
        facts.append(fill(words["difference"], n=data["difference"], **pair))
    value, step = _solve(data, nouns, links)
    steps, known = [step], nouns[data["solve"]]
    for (kind, n), noun in zip(data["links"], nouns[2:], strict=False):
        facts.append(fill(links[kind], n=n, A=known, B=noun))
        following = _follow(value, kind, n)
        written = f"{value} {OPERATORS[kind]} {n} = {following}"
        steps.append(fill(links["then"], sum=written, A=known, B=noun))
        value, known = following, noun
    question = fill((links if data["links"] else words)["ask"], A=known)
    return Story(tuple(facts), question, tuple(steps), form.own_names)


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
    path = [(x, y)[solve]]
    data["links"] = [list(_link(rng)) for _ in range(depth - 1 - weighted)]
    for kind, n in data["links"]:
        path.append(_follow(path[-1], kind, n))
    stated = [x + y, data["difference"] or data["weights"][2]]
    if not all(2 <= number <= 99 for number in (*path, *stated)):
        return None
    given = {*stated, *(data["weights"] or ()), *(n for _, n in data["links"])}
    below = 1000 if data["links"] else x + y
    return Draft(data, path[-1], given, below)


def _link(rng: random.Random) -> Link:
    kind = rng.choice(tuple(OPERATORS))
    return kind, rng.randint(2, 4) if kind == "times" else rng.randint(2, 15)


def _follow(value: int, kind: str, n: int) -> int:
    return {"more": value + n, "fewer": value - n, "times": value * n}[kind]


def _solve(data: Any, nouns: list[str], links: Mapping[str, str]) -> tuple[int, str]:
    """The value of the unknown that is solved for, and how."""
    solve, total = data["solve"], data["total"]
    wanted, other = nouns[solve], nouns[1 - solve]
    if not data["weights"]:
        sign = "+" if solve == 0 else "-"
        double = total + data["difference"] * (1 if solve == 0 else -1)
        written = f"{total} {sign} {data['difference']} = {double}"
        return double // 2, fill(links["half"], A=wanted, sum=written, x=double // 2)
    weight, rest, n = data["weights"][solve], data["weights"][1 - solve], data["weights"][2]
    high, low = sorted((n, total * rest), reverse=True)
    heavy, light = sorted((weight, rest), reverse=True)
    x = (high - low) // (heavy - light)
    step = fill(
        links["replaced"],
        A=wanted,
        B=other,
        all=f"{total} * {rest} = {total * rest}",
        excess=f"{high} - {low} = {high - low}",
        gap=f"{heavy} - {light} = {heavy - light}",
        x=f"{high - low} / {heavy - light} = {x}",
    )
    return x, step


FAMILY = Family("two_unknowns", draw, render)
