"""Solvers that know a form's data and nothing of the families' code.

They try all that may be, search, count and simulate where the families infer and calculate.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

Data = Mapping[str, Any]
Fact = tuple[str, int, int]


def solve_ordering(data: Data) -> str:
    """Every order of the things that fits the facts; all agree on who is asked for."""
    pairs = [(a, b) if kind == "more" else (b, a) for a, b, kind in data["facts"]]
    orders = itertools.permutations(range(data["count"]))
    fitting = [o for o in orders if all(o.index(high) < o.index(low) for high, low in pairs)]
    places = {"top": data["rank"] - 1, "bottom": -data["rank"]}
    [entity] = {order[places[data["end"]]] for order in fitting}
    return f"e{entity}"


def solve_implication(data: Data) -> str:
    """Every assignment of truth that fits rules and given: what it makes of the query."""
    count = 1 + max(atom for rule in data["rules"] for atom, _ in rule)
    given, sign = data["given"]
    seen = {
        truth[data["query"]]
        for truth in itertools.product((False, True), repeat=count)
        if truth[given] == sign
        and all(truth[p] != x or truth[q] == y for (p, x), (q, y) in data["rules"])
    }
    return verdict(seen)


def verdict(seen: set[bool]) -> str:
    """What holds in all models, fails in all, or neither."""
    assert seen, "the premises contradict each other"
    return "unknown" if len(seen) == 2 else "yes" if seen == {True} else "no"


def solve_syllogism(data: Data) -> str:
    """What individuals there may be and must be, tried as sets that they belong to.

    A model is a crowd of individuals, each of which keeps to "all" and "no"; each "some" wants
    one in both of its sets. So a query "all" holds if no possible individual breaks it, and fails
    if some wanted one cannot but break it; "some" likewise.
    """
    facts, (kind, a, b) = data["facts"], data["query"]
    count = 1 + max(max(x, y) for _, x, y in facts)
    possible = [
        one
        for one in itertools.product((False, True), repeat=count)
        if all(not one[x] or one[y] for word, x, y in facts if word == "all")
        and not any(one[x] and one[y] for word, x, y in facts if word == "no")
    ]

    def counts(one: tuple[bool, ...]) -> bool:
        return one[a] and (one[b] if kind == "some" else not one[b])

    wanted = [[o for o in possible if o[x] and o[y]] for word, x, y in facts if word == "some"]
    assert all(wanted), "the premises contradict each other"
    if any(all(counts(one) for one in ones) for ones in wanted):
        return "yes" if kind == "some" else "no"
    if any(counts(one) for one in possible):
        return "unknown"
    return "no" if kind == "some" else "yes"


def crowds(count: int) -> Iterator[frozenset[tuple[bool, ...]]]:
    """Every set of kinds of individuals over `count` sets: 2 ** 2 ** count crowds."""
    kinds = list(itertools.product((False, True), repeat=count))
    for chosen in itertools.product((False, True), repeat=len(kinds)):
        yield frozenset(itertools.compress(kinds, chosen))


def solve_by_crowds(facts: list[Fact], query: Fact, may_be_empty: bool) -> str:
    """A syllogism by all of its models; for up to three sets."""
    count = 1 + max(max(a, b) for _, a, b in facts)
    seen = set()
    for crowd in crowds(count):
        if not may_be_empty and not all(any(one[i] for one in crowd) for i in range(count)):
            continue
        if all(_holds(crowd, fact) for fact in facts):
            seen.add(_holds(crowd, query))
    return verdict(seen) if seen else "contradiction"


def _holds(crowd: frozenset[tuple[bool, ...]], fact: Fact) -> bool:
    kind, a, b = fact
    both = any(one[a] and one[b] for one in crowd)
    return {"some": both, "no": not both, "all": all(one[b] for one in crowd if one[a])}[kind]


def solve_branching(data: Data) -> str:
    """Outcomes on a stack: from the last condition to the first, each one chooses."""
    levels = data["levels"]
    result = len(levels)
    for i in reversed(range(len(levels))):
        level = levels[i]
        gap = level["value"] - level["threshold"]
        true = gap > 0 if level["when"] == "above" else gap < 0
        then, other = (i, result) if level["leaves"] else (result, i)
        result = then if true else other
    return f"e{result}"


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
    "ordering": solve_ordering,
    "implication": solve_implication,
    "syllogism": solve_syllogism,
    "branching": solve_branching,
    "rates": solve_rates,
    "two_unknowns": solve_two_unknowns,
    "counting": solve_counting,
    "state_changes": solve_state_changes,
}
