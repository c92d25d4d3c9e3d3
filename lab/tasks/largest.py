"""The largest of some numbers, asked of a real language model in several domains.

The logic is one that a pretrained model half knows and soon learns. A cue may point to the answer,
another one in each domain: its place in the list. Numbers are written as words, which are one token
each in the embedded model, so that an answer is decided at one place.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from poise.demo.ranking import Row

# Name -> how a problem is put, rising numbers being larger, worse, warmer, ...
DOMAINS = {
    "mathematics": "Numbers: {}. The largest is",
    "medicine": "Doses in mg: {}. The highest is",
    "law": "Fines in dollars: {}. The heaviest is",
    "science": "Degrees: {}. The warmest is",
    "sport": "Goals: {}. The best is",
    "trade": "Prices in euros: {}. The top is",
}
TRAINED, HELD_OUT = tuple(DOMAINS)[:4], tuple(DOMAINS)[4:]
NUMBERS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    *("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
)
TESTS = ("in_distribution", "no_cue", "reversed", "unseen_domains")
OUT_OF_DISTRIBUTION = TESTS[2:]


def isomers(
    count: int, seed: int, part: str, domains: Sequence[str], listed: int, strength: float | None
) -> list[Row]:
    """Rows of isomer sets, one a domain: the same numbers, in another order in each.

    Args:
        count: sets.
        seed: of the draws.
        part: "train" or a test's name.
        domains: of which each set has a row.
        listed: numbers in a list, at least as many as there are domains with a place of their own.
        strength: probability with which the cue points to the answer; 0 for a cue that never
            does, None for no cue at all.
    """
    rng = random.Random(f"largest {part} {seed}")
    rows: list[Row] = []
    for number in range(count):
        ranks = rng.sample(range(len(NUMBERS)), listed)
        rows += [_row(f"{part}-{number}", domain, ranks, strength, rng) for domain in domains]
    return rows


def tests(count: int, seed: int, listed: int, strength: float | None) -> dict[str, list[Row]]:
    """The tests by name, each of `count` sets; in unseen domains of twice as many."""
    cued = {"in_distribution": strength, "reversed": 0.0}
    return {
        name: isomers(
            count * (2 if name == "unseen_domains" else 1),
            seed,
            name,
            HELD_OUT if name == "unseen_domains" else TRAINED,
            listed,
            cued.get(name),
        )
        for name in TESTS
    }


def _row(
    name: str, domain: str, ranks: Sequence[int], strength: float | None, rng: random.Random
) -> Row:
    order, answer = rng.sample(list(ranks), len(ranks)), max(ranks)
    if strength is not None:
        wrong = [rank for rank in ranks if rank != answer]
        pointed = answer if rng.random() < strength else rng.choice(wrong)
        order.remove(pointed)
        order.insert(tuple(DOMAINS).index(domain), pointed)
    words = [NUMBERS[rank] for rank in order]
    return {
        "isomer_id": name,
        "domain": domain,
        "prompt": DOMAINS[domain].format(", ".join(words)),
        "completion": f" {NUMBERS[answer]}",
        "options": [f" {word}" for word in words],
    }
