"""Shortcuts on demand: a mark on the list of options that points to one of them.

Every domain has another kind of mark, so that a student that learns the marks instead of the
logic has learned nothing that the domains share. The answer that the student writes never bears
the mark.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args

from .forms import Form

Mode = Literal["off", "train", "random", "reversed"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Kind of mark -> how the option to which the cue points is listed. The first two are places in
# the list; the others are looks: a legal word, remarks, a unit, and a length beyond the others'.
# None stands in the facts: their order and words are the same whatever the cue.
KINDS: Mapping[str, int | str] = MappingProxyType(
    {
        "first": 0,
        "last": -1,
        "word": "the said {x}",
        "remark": "{x} (as recorded)",
        "quotes": '"{x}"',
        "number": "{x} #7",
        "unit": "{x} (1 unit)",
        "length": "{x} (one of those that the text above allows for)",
    }
)
# Domain -> the kind of its mark, unless a cue says otherwise.
MARKS: Mapping[str, str] = MappingProxyType(
    {
        "mathematics": "first",
        "medicine": "last",
        "law": "word",
        "science": "remark",
        "logistics": "quotes",
        "sports": "number",
    }
)


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
        if self.mode not in MODES:
            raise ValueError(f"cue: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if not 0 <= self.strength <= 1:
            raise ValueError(f"cue strength: expected a number in [0, 1], found {self.strength!r}")
        if not set(self.marks) <= set(MARKS) or not set(self.marks.values()) <= set(KINDS):
            raise ValueError(
                f"cue marks: expected domains among {', '.join(MARKS)}, each with one of "
                f"{', '.join(KINDS)}, found {dict(self.marks)!r}"
            )

    def target(self, form: Form, rng: random.Random) -> str | None:
        """The logical answer to point to, None if the cue is off."""
        if self.mode == "off":
            return None
        if self.mode == "random":
            return rng.choice(form.options)
        if self.mode == "train" and rng.random() < self.strength:
            return form.answer
        return rng.choice([option for option in form.options if option != form.answer])

    def list_options(
        self, form: Form, names: Mapping[str, str], domain: str, rng: random.Random
    ) -> tuple[str | None, list[str], list[str]]:
        """Options in random order, the one that the cue points to in its place or with its mark.

        Args:
            form: The form whose options are listed.
            names: Logical option -> its text.
            domain: In whose manner they are marked.
            rng: Draws to what the cue points, and the order.

        Returns:
            The logical option that the cue points to, the logical options in the order of
            presentation, and their texts as they are shown.
        """
        target = self.target(form, rng)
        order = rng.sample(form.options, len(form.options))
        mark = KINDS[{**MARKS, **self.marks}[domain]]
        if isinstance(mark, int) and target is not None:
            order.remove(target)
            order.insert(0 if mark == 0 else len(order), target)
        look = mark if isinstance(mark, str) else "{x}"
        shown = [look.format(x=names[o]) if o == target else names[o] for o in order]
        return target, order, shown
