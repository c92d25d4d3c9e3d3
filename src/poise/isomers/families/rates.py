"""Rates and proportions: an amount follows another at a constant rate, or is shared in a ratio.

A form's data: ``start``, the first amount; ``links``, pairs ``[a, b]``: every `a` of an
amount go with `b` of the next; ``split``, ``[p, q]`` or None: the share of the first.
"""

from __future__ import annotations

import math
import random
from fractions import Fraction

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import counted, every, fill, plural, read_words

MAX_LINKS = 3  # a fourth step is always a sharing, a first one never
SPLIT_SHARE = 0.4


def _draw(rng: random.Random, depth: int) -> Form:
    """A random form; `depth` counts the rates and the sharing."""
    split = depth > MAX_LINKS or (depth > 1 and rng.random() < SPLIT_SHARE)
    return draw_form(rng, "rates", depth, lambda rng: _attempt(rng, depth, split))


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    words, data = read_words("rates")[domain][phrasing], form.data
    units, split, amount = words["units"], data["split"], data["start"]
    facts, steps = [fill(words["given"], x=counted(amount, units[0]))], []
    for i, (a, b) in enumerate(data["links"]):
        near, far = units[i : i + 2]
        facts.append(fill(words["links"][i], b=counted(b, far), per=every(a, near)))
        k = amount // a
        numbers = {"x": counted(amount, near), "a": counted(a, near), "k": k, "b": b, "y": k * b}
        steps.append(fill(words["steps"][a == 1], **numbers, B=plural(far)))
        amount = k * b
    noun = plural(units[len(data["links"])])
    if split:
        p, q = split
        facts.append(fill(words["split"], B=noun, p=p, q=q))
        k = amount // (p + q)
        numbers = {"p": p, "q": q, "n": p + q, "x": amount, "k": k, "y": p * k}
        steps.append(fill(words["steps"][2], **numbers, B=noun))
    return Story(facts, fill(words["asks"][bool(split)], B=noun), steps)


def _attempt(rng: random.Random, depth: int, split: bool) -> Draft | None:
    limit = 99 if depth <= 2 else 250
    links = [_ratio(rng) for _ in range(depth - split)]
    parts = _ratio(rng) if split else []
    steps = [*links, [sum(parts), parts[0]]] if split else links
    unit, grown = 1, Fraction(1)  # the least start whose every step is whole
    for a, b in steps:
        unit = math.lcm(unit, (grown / a).denominator)
        grown *= Fraction(b, a)
    if unit > 99 or math.gcd(*parts) > 1:
        return None
    amounts = [unit * rng.randint(1, 99 // unit)]
    for a, b in steps:
        amounts.append(amounts[-1] // a * b)
    if any(amount == a for amount, (a, _) in zip(amounts, links, strict=False)):
        return None
    if not all(4 <= amount <= limit for amount in amounts):
        return None
    data = {"start": amounts[0], "links": links, "split": parts or None}
    given = {amounts[0], *parts, *(n for link in links for n in link)}
    return Draft(data, amounts[-1], given, amounts[-2] if split else 1000)


def _ratio(rng: random.Random) -> list[int]:
    """Two different small numbers, sometimes `something for every one`."""
    a = 1 if rng.random() < 0.2 else rng.randint(2, 9)
    return [a, rng.choice([b for b in range(2, 10) if b != a])]


FAMILY = Family("rates", _draw, _render, range(1, MAX_LINKS + 2))
