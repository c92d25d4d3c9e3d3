"""Counting with overlap: how many have one thing, both, or none (inclusion and exclusion).

A form's data: ``sets``; ``given``, counts by key as in `Kind`; ``asked``, a key; ``kind``, its
place among the kinds of its depth.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..forms import Family, Form, Story
from .number_options import Draft, draw_form
from .words import equation, fill, read_words


class Kind(NamedTuple):
    """How many things there are, what is given, and the way to what is asked.

    Counts have keys: ``total``; ``0``, ``01``, ``012`` for those who have at least these things;
    ``any``, ``none`` and ``one`` (exactly one) of the things; ``only`` the first of two;
    ``singles`` and ``pairs``, sums over things and over pairs of them. A step is the key of a
    count and the terms that add up to it; the last one is asked.
    """

    sets: int
    given: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]


_ANY, _BOTH = ("any", "0 + 1 - 01"), ("01", "0 + 1 - any")
_FROM_TOTAL = ("any", "total - none")
_SUMS = (("singles", "0 + 1 + 2"), ("pairs", "01 + 02 + 12"))
_THREE = ("0", "1", "2", "01", "02", "12", "012")
_ANY_3 = ("any", "singles - pairs + 012")
# Depth -> kinds that take as many steps.
KINDS: Mapping[int, tuple[Kind, ...]] = {
    1: (
        Kind(2, ("0", "1", "01"), (_ANY,)),
        Kind(2, ("0", "1", "any"), (_BOTH,)),
        Kind(2, ("any", "0", "01"), (("1", "any - 0 + 01"),)),
    ),
    2: (
        Kind(2, ("total", "0", "1", "01"), (_ANY, ("none", "total - any"))),
        Kind(2, ("0", "1", "01"), (_ANY, ("one", "any - 01"))),
        Kind(2, ("0", "1", "any"), (_BOTH, ("only", "0 - 01"))),
        Kind(2, ("total", "0", "1", "none"), (_FROM_TOTAL, _BOTH)),
        Kind(2, ("total", "none", "0", "01"), (_FROM_TOTAL, ("1", "any - 0 + 01"))),
    ),
    3: (
        Kind(3, _THREE, (*_SUMS, _ANY_3)),
        Kind(2, ("total", "0", "1", "none"), (_FROM_TOTAL, _BOTH, ("one", "any - 01"))),
        Kind(2, ("total", "0", "1", "none"), (_FROM_TOTAL, _BOTH, ("only", "0 - 01"))),
    ),
    4: (
        Kind(3, ("total", *_THREE), (*_SUMS, _ANY_3, ("none", "total - any"))),
        Kind(3, ("total", "none", *_THREE[:-1]),
             (*_SUMS, _FROM_TOTAL, ("012", "any - singles + pairs"))),
        Kind(3, _THREE, (*_SUMS, _ANY_3, ("one", "any - pairs + 012 + 012"))),
    ),
}  # fmt: skip


def _draw(rng: random.Random, depth: int) -> Form:
    """A random form; `depth` counts the sums on the way to the answer."""
    number = rng.randrange(len(KINDS[depth]))
    return draw_form(rng, "counting", depth, lambda rng: _attempt(rng, depth, number))


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    words = read_words("counting")[domain][phrasing]
    joins = read_words("counting", "joins")[domain]
    kind = KINDS[form.depth][form.data["kind"]]
    things = rng.sample(words["things"], kind.sets)
    counts = dict(form.data["given"])
    facts, steps = [], []
    for key in kind.given:
        template = words["total" if key == "total" else "fact"]
        facts.append(fill(template, n=counts[key], which=_which(key, things, joins)))
    for key, terms in kind.steps:
        written, counts[key] = _sum(terms, counts)
        template = joins[key] if key in ("singles", "pairs") else words["step"]
        steps.append(fill(template, n=written, which=_which(key, things, joins)))
    question = fill(words["ask"], which=_which(kind.steps[-1][0], things, joins))
    return Story(facts, question, steps)


def _attempt(rng: random.Random, depth: int, number: int) -> Draft | None:
    kind = KINDS[depth][number]
    most, things = 24 if kind.sets == 2 else 12, range(kind.sets)
    who = [have for size in range(kind.sets + 1) for have in itertools.combinations(things, size)]
    people = {have: rng.randint(1, most) for have in who}
    given = {key: sum(people[h] for h in who if _is_counted(key, h)) for key in kind.given}
    counts = dict(given)
    for key, terms in kind.steps:
        _, counts[key] = _sum(terms, counts)
    if min(counts.values()) < 2:
        return None
    asked = kind.steps[-1][0]
    # It is less than what is given of everybody, or of those who have a part of it.
    wholes = {"total", "any"} | ({"0"} if asked == "only" else set())
    if asked.isdigit():
        wholes |= {key for key in given if key.isdigit() and set(key) < set(asked)}
    below = min([given[key] for key in wholes & set(given)], default=1000)
    data = {"sets": kind.sets, "given": given, "asked": asked, "kind": number}
    return Draft(data, counts[asked], set(given.values()), below)


def _is_counted(key: str, have: tuple[int, ...]) -> bool:
    """Whether a key counts those who have exactly these things."""
    if key.isdigit():
        return set(map(int, key)) <= set(have)
    return {"total": True, "any": bool(have), "none": not have}[key]


def _sum(terms: str, counts: Mapping[str, int]) -> tuple[str, int]:
    """The equation of terms such as ``0 + 1 - 01``, and its value."""
    return equation(*(counts.get(term, term) for term in terms.split()))


def _which(key: str, things: list[str], joins: Mapping[str, Any]) -> str:
    """A key in words: ``both aspirin and insulin``."""
    if key in ("total", "singles", "pairs"):
        return ""
    if key.isdigit():
        things = [things[int(digit)] for digit in key]
    if len(things) == 1:
        return things[0]
    template = joins["all" if key.isdigit() else key]
    if key != "only":
        template = template[len(things) - 2]
    return str(template.format(**dict(zip("abc", things, strict=False))))


FAMILY = Family("counting", _draw, _render)
