"""Balanced, seeded sets of science questions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import cycle
from random import Random
from typing import TypeVar

from poise.question import LETTERS, LEVELS, Letter, Question
from poise.splits import check_split, stable_split

from .registry import COMPUTED_LEVELS, DOMAINS, Draft, Template, templates

Part = TypeVar("Part")

# Tries per missing question. A split holds a tenth of a template's questions at least, so so
# many fruitless draws mean that (nearly) all of them have been seen.
MAX_TRIES = 2000


def generate(
    domains: Sequence[str] = DOMAINS,
    levels: Sequence[int] = COMPUTED_LEVELS,
    count: int = 100,
    split: str = "train",
    seed: int = 0,
) -> list[Question]:
    """Make science questions, balanced over domains, levels, templates and answer letters.

    The same arguments give the same questions on every machine. No question occurs twice, and
    none of one split occurs in another under any seed: a hash of its content decides the split.

    Args:
        domains: Some of ``chemistry``, ``physics``, ``biology``, ``materials``.
        levels: Some of 0 (a fact to recall), 1 (one look), 2 (one formula), 3 (two steps),
            4 (several steps); by default all but 0.
        count: How many questions.
        split: ``train``, ``validation`` or ``test``.
        seed: Any integer.

    Raises:
        ValueError: On unknown domains, levels or splits, a count below one, or when a template
            has no more new questions for this split.
    """
    _check(domains, levels, count)
    check_split(split)
    letters = cycle(LETTERS)
    questions: list[Question] = []
    for template, quota in _quotas(domains, levels, count, seed):
        rng = Random(f"poise science {seed} {split} {template.domain} {template.name}")
        turn = [next(letters) for _ in range(quota)]
        rng.shuffle(turn)
        drafts = _draw(template, quota, split, rng)
        questions += [
            _assemble(template, draft, letter, rng)
            for draft, letter in zip(drafts, turn, strict=True)
        ]
    Random(f"poise science order {seed} {split}").shuffle(questions)
    return questions


def _check(domains: Sequence[str], levels: Sequence[int], count: int) -> None:
    for name, found, known in (("domains", domains, DOMAINS), ("levels", levels, LEVELS)):
        if isinstance(found, str) or not found or not set(found) <= set(known):
            raise ValueError(f"{name}: expected some of {list(known)}, found {found!r}")
        if len(set(found)) != len(found):
            raise ValueError(f"{name}: expected each one once, found {list(found)!r}")
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")


def _quotas(
    domains: Sequence[str], levels: Sequence[int], count: int, seed: int
) -> Iterator[tuple[Template, int]]:
    """Divide the count evenly; who gets the odd ones is drawn, so that it favours nobody."""
    rng = Random(f"poise science quotas {seed}")
    for domain, of_domain in _divide(sorted(domains), count, rng):
        for level, of_level in _divide(sorted(levels), of_domain, rng):
            yield from _divide(templates(domain, level), of_level, rng)


def _divide(parts: Sequence[Part], total: int, rng: Random) -> list[tuple[Part, int]]:
    shares = [total // len(parts) + (i < total % len(parts)) for i in range(len(parts))]
    rng.shuffle(shares)
    return [(part, share) for part, share in zip(parts, shares, strict=True) if share]


def _draw(template: Template, quota: int, split: str, rng: Random) -> list[Draft]:
    """Draw new questions of one template until the quota is met."""
    found: dict[str, Draft] = {}
    tries = 0
    while len(found) < quota:
        draft = template.make(rng)
        key = template.key(draft)
        tries += 1
        if key not in found and stable_split(key) == split:
            found[key] = draft
            tries = 0
        elif tries >= MAX_TRIES:
            raise ValueError(
                f"science questions: expected {quota} different ones of template "
                f"{template.domain}/{template.name} in split {split!r}, found {len(found)}; "
                "lower the count, or add levels or domains"
            )
    return list(found.values())


def _assemble(template: Template, draft: Draft, letter: Letter, rng: Random) -> Question:
    others = list(draft.others(rng))
    rng.shuffle(others)
    others.insert(LETTERS.index(letter), draft.answer)
    first, second, third, fourth = others
    text = "\n".join([draft.stem, *others])
    return Question(
        id=f"{template.domain}-{template.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}",
        domain=template.domain,
        template=template.name,
        level=template.level,
        stem=draft.stem,
        options=(first, second, third, fourth),
        answer=letter,
        solution="\n".join([*draft.steps, f"Answer: {letter}"]),
    )
