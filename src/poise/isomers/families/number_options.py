"""Options for number answers: the answers of like problems, so that no number gives itself away."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ..forms import Form

COUNT = 4
SMALLEST = 2  # 1 would need a singular, 0 a "none"
WIDEST = 2  # an option further off than this factor is seen through without reasoning
TRIES = 100_000
MISSES = 40


class Draft(NamedTuple):
    """A drawn form before its options.

    No option is one of the numbers that the facts state (`given`), so that none is chosen or
    dismissed for having been read before. All are less than `below`, as a part than its whole.
    """

    data: dict[str, Any]
    answer: int
    given: Collection[int]
    below: int = 1000

    def admits(self, number: int) -> bool:
        """Whether a number can be one of the options."""
        return SMALLEST <= number < self.below and number not in self.given

    def fits(self, other: Draft) -> bool:
        """Whether the answers differ, are near, and can be options of each other."""
        low, high = sorted((self.answer, other.answer))
        is_near = low < high <= low * WIDEST
        return is_near and self.admits(other.answer) and other.admits(self.answer)


def draw_form(
    rng: random.Random, family: str, depth: int, attempt: Callable[[random.Random], Draft | None]
) -> Form:
    """One of four drafts, with the answers of all four as its options.

    Any of the four could have these options, and which one is drawn last of all. So
    nothing but the facts says which number is right: whatever is read off the four alone (size,
    rank, parity, roundness, digits, distances, one dividing another), each is as likely. Typical
    mistakes as wrong options would not do: the answer is the one from which the others come, and
    that shows.

    Raises:
        RuntimeError: no drafts fit, which is a fault of the family.
    """
    drafts: list[Draft] = []
    missed = 0
    for _ in range(TRIES):
        draft = attempt(rng)
        if draft is None or not draft.admits(draft.answer):
            continue
        if all(map(draft.fits, drafts)):
            drafts.append(draft)
        else:
            missed += 1
        if len(drafts) == COUNT:
            options = [str(one.answer) for one in drafts]
            rng.shuffle(options)
            chosen = rng.choice(drafts)
            return Form(family, depth, chosen.data, str(chosen.answer), tuple(options))
        if missed == MISSES:  # an odd draft at the start may have no company
            drafts, missed = [], 0
    raise RuntimeError(f"{family}: no form of depth {depth} in {TRIES} attempts")
