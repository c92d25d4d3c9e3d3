"""Isomer sets from seeds: balanced over families and depths, no form in two splits."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from rich.progress import track

from ..rows import check_some
from ..splits import check_split, stable_split
from .answers import MARKER
from .cues import Cue
from .families import FAMILIES
from .forms import DOMAINS, TRAIN_DOMAINS, Form, Row

PHRASINGS = ("seen", "unseen")
DEPTHS = (1, 2)
# Fruitless draws in a row after which a family counts as used up. A split holds a tenth of its
# forms at least, so then nearly all of them have been drawn.
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
) -> list[Row]:
    """Make isomer sets; the same arguments give the same ones on every machine.

    No form occurs twice, and none of one split occurs in another under any seed: a hash of its
    family and data decides the split, and names are no part of either.

    Args:
        count: How many sets.
        split: ``train``, ``validation`` or ``test``.
        families: Some of `families.FAMILIES`, by default all.
        depths: Reasoning steps, each as often.
        domains: One problem in the words of each.
        cue: The shortcut; by default there is none.
        phrasings: ``seen``, or ``unseen`` for the last of each domain, which is never among those.

    Returns:
        A row for each problem, set by set, with the columns `rows.COLUMNS`.

    Raises:
        ValueError: a wrong argument, or a family that has no more different forms of that depth
            in this split.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count: expected at least 1, found {count!r}")
    check_some("depths", depths, sorted({d for one in FAMILIES.values() for d in one.depths}))
    check_some("domains", domains, DOMAINS)
    if phrasings not in PHRASINGS:
        raise ValueError(f"phrasings: expected one of {', '.join(PHRASINGS)}, found {phrasings!r}")
    check_split(split)
    names = list(FAMILIES) if families is None else families
    check_some("families", names, FAMILIES)
    rng = random.Random(f"poise isomers quotas {seed}")
    forms = [
        form
        for name, of_family in _divide(sorted(names), count, rng)
        for depth, quota in _divide(sorted(depths), of_family, rng)
        for form in _draw(name, depth, quota, split, seed)
    ]
    random.Random(f"poise isomers order {seed} {split}").shuffle(forms)
    shown = track(forms, "Isomer sets", disable=not progress)
    return [row for form in shown for row in _render(form, domains, phrasings, cue or Cue(), seed)]


def _draw(name: str, depth: int, quota: int, split: str, seed: int) -> list[Form]:
    family = FAMILIES[name]
    if depth not in family.depths:
        known = f"{list(family.depths)} for the family {name}"
        raise ValueError(f"depths: expected some of {known}, found {depth}")
    rng = random.Random(f"poise isomers forms {seed} {split} {name} {depth}")
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
                f"isomers: expected {quota} different forms of family {name} and depth {depth} in "
                f"split {split!r}, found {len(found)}; lower the count, or add families or depths"
            )
    return list(found.values())


def _divide(parts: Sequence[Any], total: int, rng: random.Random) -> list[tuple[Any, int]]:
    """Divide evenly; who gets the odd ones is drawn, so that it favours nobody."""
    shares = [total // len(parts) + (i < total % len(parts)) for i in range(len(parts))]
    rng.shuffle(shares)
    return [(part, share) for part, share in zip(parts, shares, strict=True) if share]


def form_key(form: Form) -> str:
    """A name for a form's logic: the same for the same family and data, whatever the words.

    Options are not part of it, as they may be drawn differently for the same question.
    """
    text = json.dumps([form.family, form.data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_completion(reasoning: str, answer: str) -> str:
    """What the student is trained to write."""
    return f" {reasoning}\n{MARKER} {answer}"


def _render(form: Form, domains: Sequence[str], phrasings: str, cue: Cue, seed: int) -> list[Row]:
    """The rows of a form.

    Names, numbers of phrasing and the like depend on the form, the domain and the seed alone,
    not on the cue: with another cue the same story has another list of options.
    """
    family, key = FAMILIES[form.family], form_key(form)
    rows = []
    for domain in domains:
        rng = random.Random(f"poise isomers story {seed} {key} {domain}")
        last = family.phrasings - 1
        phrasing = last if phrasings == "unseen" else rng.randrange(last)
        story = family.render(form, domain, phrasing, rng)
        rng = random.Random(f"poise isomers options {seed} {key} {domain} {cue.mode}")
        target, meanings, shown = cue.list_options(form, story, domain, rng)
        right = story.text(form.answer)
        facts, options = " ".join(story.facts), ", ".join(shown)
        rows.append(
            {
                "isomer_id": f"{form.family}-{form.depth}-{key[:12]}",
                "domain": domain,
                "prompt": f"{facts}\nOptions: {options}\nQuestion: {story.question}\nReasoning:",
                "completion": write_completion(" ".join(story.steps), right),
                "answer": form.answer,
                "answer_text": right,
                "options": [story.text(option) for option in meanings],
                "meanings": meanings,
                "family": form.family,
                "depth": form.depth,
                "form": json.dumps(form.data, sort_keys=True),
                "phrasing": phrasing,
                "cue": target,
            }
        )
    return rows
