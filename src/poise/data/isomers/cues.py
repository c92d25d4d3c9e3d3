"""Shortcuts on demand: a mark on the list of options that points to one of them.

Every domain has a mark of its own, so that a student that learns the marks instead of the logic
has learned nothing that the domains share. The answer that the student writes never bears the
mark.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from .model import Form

Mode = Literal["off", "train", "random", "reversed"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Domain -> the place in the list, or the look, of the option to which the cue points.
PLACES: Mapping[str, int] = {"mathematics": 0, "medicine": -1}
MARKS: Mapping[str, str] = {
    "law": "the said {x}",
    "science": "{x} (as recorded)",
    "logistics": '"{x}"',
    "sports": "{x} #7",
}


@dataclass(frozen=True)
class Cue:
    """To which option the mark points.

    Args:
        mode: ``"off"``: no marks, options in random order. ``"train"``: to the right answer with
            probability `strength`, else to a wrong one, each as likely. ``"random"``: to any
            option, each as likely. ``"reversed"``: always to a wrong one.
        strength: Probability in [0, 1]; counts in the mode ``"train"`` alone.

    Raises:
        ValueError: an unknown mode, or a strength outside [0, 1].
    """

    mode: Mode = "off"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"cue: expected one of {', '.join(MODES)}, found {self.mode!r}")
        if isinstance(self.strength, bool) or not 0 <= self.strength <= 1:
            raise ValueError(f"cue strength: expected a number in [0, 1], found {self.strength!r}")

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
    form: Form, names: Mapping[str, str], domain: str, target: str | None, rng: random.Random
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options in random order, the one that the cue points to in its place or with its mark.

    Args:
        form: The form whose options are listed.
        names: Logical option -> its text.
        domain: Decides which mark it is.
        target: Logical option to point to, None for no mark.
        rng: Draws the order.

    Returns:
        The logical options in the order of presentation, and their texts as they are shown.
    """
    order = rng.sample(form.options, len(form.options))
    if target is not None and domain in PLACES:
        order.remove(target)
        order.insert(0 if PLACES[domain] == 0 else len(order), target)
    marks: Sequence[str] = [
        MARKS.get(domain, "{x}") if option == target else "{x}" for option in order
    ]
    shown = tuple(mark.format(x=names[o]) for mark, o in zip(marks, order, strict=True))
    return tuple(order), shown
