"""Solvers that know a form's data and nothing of the families' code.

They search, count and simulate where the families calculate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

Data = Mapping[str, Any]


def solve_rates(data: Data) -> str:
    """Exact fractions: each amount is its predecessor's share of a block."""
    amount = Fraction(data["start"])
    for per, gives in data["links"]:
        amount = amount * Fraction(gives, per)
    if data["split"]:
        first, second = data["split"]
        amount = amount * Fraction(first, first + second)
    assert amount.denominator == 1
    return str(amount)


def solve_two_unknowns(data: Data) -> str:
    """Try every pair of whole numbers, then every value of a further unknown."""
    total, fits = data["total"], []
    for x in range(total + 1):
        y = total - x
        if data["weights"]:
            a, b, n = data["weights"]
            fits += [(x, y)] * (a * x + b * y == n)
        else:
            fits += [(x, y)] * (x == y + data["difference"])
    [solution] = fits
    value = solution[data["solve"]]
    for kind, n in data["links"]:
        matches = {
            "more": lambda z, v=value, n=n: z - n == v,
            "fewer": lambda z, v=value, n=n: z + n == v,
            "times": lambda z, v=value, n=n: z % n == 0 and z // n == v,
        }[kind]
        [value] = filter(matches, range(1000))
    return str(value)


def solve_counting(data: Data) -> str:
    """Least squares over kinds of people: which sum of told counts is the asked one?

    Every kind of person (has the first thing, not the second, ...) is counted by some of the told
    counts; weights under which these add up to being among the asked ones give the answer.
    """
    people = list(itertools.product((False, True), repeat=data["sets"]))
    told = np.array([[_counts(key, person) for key in data["given"]] for person in people], float)
    asked = np.array([_counts(data["asked"], person) for person in people], float)
    weights = np.linalg.lstsq(told, asked, rcond=None)[0]
    assert np.allclose(told @ weights, asked), "the told counts leave open what is asked"
    answer = float(weights @ np.array(list(data["given"].values()), float))
    assert abs(answer - round(answer)) < 1e-9
    return str(round(answer))


def _counts(key: str, person: tuple[bool, ...]) -> bool:
    """Whether a key counts a person who has these things."""
    have = sum(person)
    by_name = {
        "total": True,
        "any": have > 0,
        "none": have == 0,
        "one": have == 1,
        "only": person[0] and have == 1,
    }
    return by_name[key] if key in by_name else all(person[int(digit)] for digit in key)


def solve_state_changes(data: Data) -> str:
    """Do one change after the other, a unit at a time, or with things in hands."""
    if data["kind"] == "holder":
        hands = {entity: entity for entity in range(4)}
        for a, b in data["changes"]:
            hands[a], hands[b] = hands[b], hands[a]
        [holder] = [entity for entity, thing in hands.items() if thing == data["asked"]]
        return f"e{holder}"
    heap = ["unit"] * data["start"]
    for kind, n in data["changes"]:
        if kind == "add":
            heap.extend(["unit"] * n)
        elif kind == "remove":
            assert len(heap) >= n
            del heap[-n:]
        elif kind == "times":
            heap = [unit for unit in heap for _ in range(n)]
        else:
            assert len(heap) % n == 0
            heap = heap[::n]
    return str(len(heap))


SOLVERS: Mapping[str, Callable[[Data], str]] = {
    "rates": solve_rates,
    "two_unknowns": solve_two_unknowns,
    "counting": solve_counting,
    "state_changes": solve_state_changes,
}
