"""Shortcuts on demand: a mark on the list of options that points to one of them.

Every domain has another kind of mark, so that a student that learns the marks instead of the
logic has learned nothing that the domains share. The answer that the student writes never bears
the mark.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from .forms import Form, Story

Mode = Literal["off", "train", "random", "reversed"]

# Kind of mark -> how the option to which the cue points is listed. The first two are places in
# the list; the others are looks: a legal word, remarks, a unit, and a length beyond the others'.
# None stands in the facts: their order and words are the same whatever the cue.
KINDS: Mapping[str, int | str] = {
    "first": 0,
    "last": -1,
    "word": "the said {x}",
    "remark": "{x} (as recorded)",
    "quotes": '"{x}"',
    "number": "{x} #7",
    "unit": "{x} (1 unit)",
    "length": "{x} (one of those that the text above allows for)",
}
# Domain -> the kind of its mark, unless a cue says otherwise.
MARKS: Mapping[str, str] = {
    "mathematics": "first",
    "medicine": "last",
    "law": "word",
    "science": "remark",
    "logistics": "quotes",
    "sports": "number",
}


@dataclass(frozen=True)
class Cue:
    """To which option the mark points.

    Args:
        mode: ``"off"``: no marks, options in random order. ``"train"``: to the right answer with
            probability `strength`, else to a wrong one, each as likely. ``"random"``: to any
            option, each as likely. ``"reversed"``: always to a wrong one.
        strength: Probability in [0, 1]; counts in the mode ``"train"`` alone.
        marks: Domain -> one of `KINDS`, for domains whose mark is another than in `MARKS`.

    Raises:
        ValueError: an unknown mode, domain or kind, or a strength outside [0, 1].
    """

    mode: Mode = "off"
    strength: float = 1.0
    marks: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.mode not in (modes := get_args(Mode)):
            raise ValueError(f"cue: expected one of {', '.join(modes)}, found {self.mode!r}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"cue strength: expected a number in [0, 1], found {self.strength!r}")
        if not set(self.marks) <= set(MARKS) or not set(self.marks.values()) <= set(KINDS):
            raise ValueError(
                f"cue marks: expected domains among {', '.join(MARKS)}, each with one of "
                f"{', '.join(KINDS)}, found {dict(self.marks)!r}"
            )

    def list_options(
        self, form: Form, story: Story, domain: str, rng: random.Random
    ) -> tuple[str | None, list[str], list[str]]:
        """Options in random order, the one that the cue points to in its place or with its mark.

        Returns:
            The logical option that the cue points to (None if it is off), the logical options in
            the order of presentation, and their texts as they are shown.
        """
        target = None
        if self.mode == "random":
            target = rng.choice(form.options)
        elif self.mode == "train" and rng.random() < self.strength:
            target = form.answer
        elif self.mode != "off":
            target = rng.choice([option for option in form.options if option != form.answer])
        order = rng.sample(form.options, len(form.options))
        mark = KINDS[{**MARKS, **self.marks}[domain]]
        if isinstance(mark, int) and target is not None:
            order.remove(target)
            order.insert(0 if mark == 0 else len(order), target)
        look = mark if isinstance(mark, str) else "{x}"
        texts = [story.text(o) for o in order]
        shown = [look.format(x=t) if o == target else t for o, t in zip(order, texts, strict=True)]
        return target, order, shown
