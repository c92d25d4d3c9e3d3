"""Rates and proportions: an amount follows another at a constant rate, or is shared in a ratio.

A form's data: ``start``, the first amount; ``links``, pairs ``[a, b]``: every `a` of an
amount go with `b` of the next; ``split``, ``[p, q]`` or None: the share of the first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import counted, every, fill, plural, read_words

MAX_LINKS = 3  # a fourth step is always a sharing, a first one never
SPLIT_SHARE = 0.4


def draw(rng: random.Random, depth: int) -> Form:
    """A random form; `depth` counts the rates and the sharing."""
    split = depth > MAX_LINKS or (depth > 1 and rng.random() < SPLIT_SHARE)
    return draw_form(rng, "rates", depth, lambda rng: _attempt(rng, depth, split))


def render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """The form in a domain's words."""
    words, data = read_words("rates")[domain][phrasing], form.data
    links, split = data["links"], data["split"]
    facts = [fill(words["given"], x=counted(data["start"], words["units"][0]))]
    steps, amount = [], data["start"]
    for i, (a, b) in enumerate(links):
        near, far = words["units"][i], words["units"][i + 1]
        facts.append(fill(words["links"][i], b=counted(b, far), per=every(a, near)))
        steps.append(_link_step(words, i, amount, a, b))
        amount = amount // a * b
    noun = plural(words["units"][len(links)])
    if split:
        facts.append(fill(words["split"], B=noun, p=split[0], q=split[1]))
        steps.append(_split_step(words, noun, amount, *split))
    question = fill(words["asks"][bool(split)], B=noun)
    return Story(tuple(facts), question, tuple(steps), form.own_names)


def _attempt(rng: random.Random, depth: int, split: bool) -> Draft | None:
    limit = 99 if depth <= 2 else 250
    links = [_ratio(rng) for _ in range(depth - split)]
    parts = list(_ratio(rng)) if split else None
    unit = _whole_start(links, parts)
    if unit > 99 or (parts and math.gcd(*parts) > 1):
        return None
    amounts = [unit * rng.randint(1, 99 // unit)]
    for a, b in links:
        amounts.append(amounts[-1] // a * b)
    if parts:
        amounts.append(amounts[-1] // sum(parts) * parts[0])
    if any(amount == a for amount, (a, _) in zip(amounts, links, strict=False)):
        return None
    if not all(4 <= amount <= limit for amount in amounts):
        return None
    data: dict[str, Any] = {"start": amounts[0], "links": links, "split": parts}
    given = {amounts[0], *(parts or ()), *(n for link in links for n in link)}
    below = amounts[-2] if parts else 1000
    return Draft(data, amounts[-1], given, below)


def _whole_start(links: list[list[int]], parts: list[int] | None) -> int:
    """The least start whose every step is whole."""
    unit, grown = 1, Fraction(1)
    for a, b in [*links, [sum(parts), parts[0]]] if parts else links:
        unit = math.lcm(unit, (grown / a).denominator)
        grown *= Fraction(b, a)
    return unit


def _ratio(rng: random.Random) -> list[int]:
    """Two different small numbers, sometimes `something for every one`."""
    a = 1 if rng.random() < 0.2 else rng.randint(2, 9)
    return [a, rng.choice([b for b in range(2, 10) if b != a])]


def _link_step(words: Mapping[str, Any], i: int, amount: int, a: int, b: int) -> str:
    near, far = words["units"][i], words["units"][i + 1]
    k = amount // a
    numbers = {"x": counted(amount, near), "a": counted(a, near), "k": k, "b": b, "y": k * b}
    return fill(words["steps"][a == 1], **numbers, B=plural(far))


def _split_step(words: Mapping[str, Any], noun: str, amount: int, p: int, q: int) -> str:
    k = amount // (p + q)
    numbers = {"p": p, "q": q, "n": p + q, "x": amount, "k": k, "y": p * k}
    return fill(words["steps"][2], **numbers, B=noun)


FAMILY = Family("rates", draw, render, range(1, MAX_LINKS + 2))
