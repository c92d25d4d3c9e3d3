"""Names of things in each domain, and the few rules of English that the tellings need.

A name is one word, so that an answer is short. The domains share no names.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

# Things, points, people and places that a telling compares.
NAMES: Mapping[str, tuple[str, ...]] = {
    "mathematics": tuple("BCDFGHJKLMNPQRSTVWXZ"),
    "medicine": (
        *("Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Iris", "Jack"),
        *("Kate", "Liam", "Mary", "Nina", "Oscar", "Paul", "Rosa", "Simon", "Tina", "Victor"),
    ),
    "law": (
        *("Adams", "Baker", "Carter", "Dixon", "Ellis", "Fisher", "Grant", "Harper", "Irving"),
        *("Jordan", "Keller", "Lewis", "Mason", "Norton", "Parker", "Quinn", "Reed", "Stone"),
    ),
    "science": (
        *("Alpha", "Beta", "Gamma", "Delta", "Epsilon", "Zeta", "Theta", "Iota", "Kappa"),
        *("Lambda", "Omega", "Sigma", "Tau", "Phi", "Chi", "Psi", "Rho", "Eta"),
    ),
    "logistics": (
        *("Lyon", "Turin", "Leeds", "Porto", "Ghent", "Basel", "Malmo", "Bergen", "Graz"),
        *("Bonn", "Cadiz", "Derby", "Essen", "Genoa", "Lille", "Nantes", "Seville", "Utrecht"),
    ),
    "sports": (
        *("Lions", "Hawks", "Bears", "Wolves", "Tigers", "Sharks", "Eagles", "Bulls", "Foxes"),
        *("Rams", "Colts", "Ravens", "Falcons", "Hornets", "Panthers", "Stags", "Otters", "Owls"),
    ),
}
# Outcomes that a telling decides for: rules, drugs, courts, methods, carriers, drills.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "mathematics": (
        *("Euler", "Gauss", "Newton", "Fermat", "Cauchy", "Hilbert", "Euclid", "Pascal"),
        *("Riemann", "Cantor", "Noether", "Galois"),
    ),
    "medicine": (
        *("Aspirin", "Codeine", "Ibuprofen", "Insulin", "Heparin", "Morphine", "Cortisone"),
        *("Quinine", "Warfarin", "Digoxin", "Atropine", "Lithium"),
    ),
    "law": (
        *("Dismissal", "Appeal", "Settlement", "Trial", "Mediation", "Arbitration", "Discovery"),
        *("Review", "Remand", "Retrial", "Transfer", "Hearing"),
    ),
    "science": (
        *("Copper", "Quartz", "Carbon", "Silver", "Cobalt", "Nickel", "Helium", "Argon"),
        *("Sulfur", "Iodine", "Silicon", "Neon"),
    ),
    "logistics": (
        *("Truck", "Train", "Barge", "Van", "Plane", "Ferry", "Courier", "Drone"),
        *("Tanker", "Bike", "Trailer", "Shuttle"),
    ),
    "sports": (
        *("Sprints", "Weights", "Rowing", "Cycling", "Swimming", "Boxing", "Rest", "Yoga"),
        *("Hurdles", "Jumps", "Passing", "Climbing"),
    ),
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def draw_names(
    domain: str, count: int, rng: random.Random, table: Mapping[str, Sequence[str]] = NAMES
) -> list[str]:
    """Different names of a domain, in random order.

    Raises:
        ValueError: the domain has not so many.
    """
    if count > len(table[domain]):
        raise ValueError(
            f"{domain}: expected at most {len(table[domain])} names to be asked for, found {count}"
        )
    return rng.sample(list(table[domain]), count)


def sentence(text: str, end: str = ".") -> str:
    """The text with a capital first letter and a full stop."""
    return text[0].upper() + text[1:] + end


def an(noun: str) -> str:
    """The noun with its article: ``a cat``, ``an hour``, ``a unit``, ``an 8``."""
    word = noun.lower()
    vowel = word.startswith(("a", "e", "i", "o", "u", "8", "11", "18"))
    silent = word.startswith(("hour", "honest", "honour", "heir"))
    spoken_yu = word.startswith(("uni", "use", "usu", "eu", "one", "once"))
    spoken_yu = spoken_yu and not word.startswith("unin")
    return f"{'an' if (vowel or silent) and not spoken_yu else 'a'} {noun}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun: ``1 box``, ``3 boxes``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(parts: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    *head, tail = list(parts)
    return f"{', '.join(head)} {last} {tail}" if head else tail
