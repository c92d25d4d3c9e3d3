"""Names of things in each domain, and a few helpers.

A name is one word, so that an answer is short. No two domains share a name.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

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
# Outcomes that a telling decides for: methods, drugs, proceedings, coatings, carriers, exercises.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "mathematics": (
        *("Euler", "Gauss", "Newton", "Fermat", "Cauchy", "Hilbert", "Euclid", "Pascal"),
        *("Riemann", "Cantor", "Noether", "Galois"),
    ),
    "medicine": (
        *("aspirin", "codeine", "ibuprofen", "insulin", "heparin", "morphine", "cortisone"),
        *("quinine", "warfarin", "digoxin", "atropine", "lithium"),
    ),
    "law": (
        *("trial", "appeal", "mediation", "arbitration", "review", "discovery", "retrial"),
        *("sentencing", "settlement", "conciliation"),
    ),
    "science": (
        *("copper", "silver", "nickel", "cobalt", "zinc", "gold", "tin", "iron", "carbon"),
        *("silicon", "chrome", "platinum"),
    ),
    "logistics": (
        *("truck", "train", "barge", "van", "plane", "ferry", "courier", "drone", "tanker"),
        *("bike", "tram", "ship"),
    ),
    "sports": (
        *("sprints", "weights", "rowing", "cycling", "swimming", "boxing", "yoga", "hurdles"),
        *("squats", "climbing", "pilates", "skipping"),
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
