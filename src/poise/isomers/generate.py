"""Isomer sets from seeds: balanced over families and depths, no form in two splits."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from rich.progress import track

from ..splits import check_split, stable_split
from .cues import Cue
from .families import FAMILIES, get_families
from .model import DOMAINS, TRAIN_DOMAINS, Family, Form, IsomerSet
from .render import form_key, tell_form

Part = TypeVar("Part")
PHRASINGS = ("seen", "unseen")
DEPTHS = (1, 2)
# Fruitless draws in a row after which a family counts as used up. A split holds a tenth of its
# forms at least, so so many mean that nearly all of them have been drawn.
MAX_TRIES = 2000


def generate_isomers(
    count: int,
    split: str = "train",
    seed: int = 0,
    families: Sequence[str] | None = None,
    depths: Sequence[int] = DEPTHS,
    domains: Sequence[str] = TRAIN_DOMAINS,
    cue: Cue | None = None,
    phrasings: str = "seen",
    progress: bool = False,
) -> list[IsomerSet]:
    """Make isomer sets; the same arguments give the same ones on every machine.

    No form occurs twice, and none of one split occurs in another under any seed: a hash of its
    family and data decides the split, and names are no part of either.

    Args:
        count: How many sets.
        split: ``train``, ``validation`` or ``test``.
        seed: Any integer.
        families: Some of `families.FAMILIES`, by default all.
        depths: Reasoning steps, each as often.
        domains: One problem in the words of each.
        cue: The shortcut; by default there is none.
        phrasings: ``seen``, or ``unseen`` for the last phrasing of each domain, which the others
            never use.
        progress: Whether to show a bar.

    Raises:
        ValueError: a wrong argument, or a family that has no more different forms of that depth
            in this split.
    """
    _check(count, depths, domains, phrasings)
    check_split(split)
    forms = draw_forms(count, split, seed, get_families(families), depths)
    shown = track(forms, "Isomer sets", disable=not progress)
    return [tell_form(form, domains, phrasings, cue, seed) for form in shown]


def draw_forms(
    count: int, split: str, seed: int, families: Sequence[Family], depths: Sequence[int]
) -> list[Form]:
    """Different forms of a split, balanced over families and depths, in random order.

    Raises:
        ValueError: a family lacks a depth, or has too few forms of it.
    """
    rng = random.Random(f"poise isomers quotas {seed}")
    ordered = sorted(families, key=lambda family: family.name)
    forms: list[Form] = []
    for family, of_family in _divide(ordered, count, rng):
        for depth, quota in _divide(sorted(depths), of_family, rng):
            forms += _draw(family, depth, quota, split, seed)
    random.Random(f"poise isomers order {seed} {split}").shuffle(forms)
    return forms


def _draw(family: Family, depth: int, quota: int, split: str, seed: int) -> list[Form]:
    if depth not in family.depths:
        raise ValueError(
            f"depths: expected some of {list(family.depths)} for the family {family.name}, "
            f"found {depth}"
        )
    rng = random.Random(f"poise isomers forms {seed} {split} {family.name} {depth}")
    found: dict[str, Form] = {}
    tries = 0
    while len(found) < quota:
        form = family.draw(rng, depth)
        key = form_key(form)
        tries += 1
        if key not in found and stable_split(key) == split:
            found[key] = form
            tries = 0
        elif tries >= MAX_TRIES:
            raise ValueError(
                f"isomers: expected {quota} different forms of family {family.name} and depth "
                f"{depth} in split {split!r}, found {len(found)}; lower the count, or add "
                "families or depths"
            )
    return list(found.values())


def _divide(parts: Sequence[Part], total: int, rng: random.Random) -> list[tuple[Part, int]]:
    """Divide evenly; who gets the odd ones is drawn, so that it favours nobody."""
    shares = [total // len(parts) + (i < total % len(parts)) for i in range(len(parts))]
    rng.shuffle(shares)
    return [(part, share) for part, share in zip(parts, shares, strict=True) if share]


def _check(count: int, depths: Sequence[int], domains: Sequence[str], phrasings: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected at least 1, found {count!r}")
    known = sorted({depth for family in FAMILIES.values() for depth in family.depths})
    _check_some("depths", depths, known)
    check_domains(domains)
    if phrasings not in PHRASINGS:
        raise ValueError(f"phrasings: expected one of {', '.join(PHRASINGS)}, found {phrasings!r}")


def check_domains(domains: Sequence[str]) -> None:
    """Raises: ValueError, unless these are some of `model.DOMAINS`, each one once."""
    _check_some("domains", domains, DOMAINS)


def _check_some(name: str, found: Sequence[Any], allowed: Sequence[Any]) -> None:
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise ValueError(f"{name}: expected some of {list(allowed)}, found {found!r}")
    if not set(found) <= set(allowed):
        raise ValueError(f"{name}: expected some of {list(allowed)}, found {list(found)!r}")
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: expected each one once, found {list(found)!r}")
