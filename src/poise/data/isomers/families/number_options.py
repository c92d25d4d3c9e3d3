"""Options for number answers: near misses whose order says nothing about which is right."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from ..model import Form

COUNT = 4
SMALLEST = 2  # 1 would need a singular, 0 a "none"
WIDEST = 3  # mistakes further off than this factor are seen through without reasoning
TRIES = 10_000


@dataclass(frozen=True)
class Draft:
    """A drawn form before its options.

    Args:
        data: The form's data.
        answer: The right answer.
        mistakes: What typical mistakes give.
        given: Numbers that the facts state; no option is one of them, so that an option is
            neither chosen nor dismissed for having been read before.
        below: What all options must be less than, as a part is less than its whole.
    """

    data: dict[str, Any]
    answer: int
    mistakes: Iterable[int]
    given: Collection[int]
    below: int = 1000


def draw_form(
    rng: random.Random, family: str, depth: int, attempt: Callable[[random.Random], Draft | None]
) -> Form:
    """A form from the first attempt that works out in whole numbers.

    Drawn before the form, and so uniform whatever the attempts reject: the answer's rank among
    the options, and which of the two outer gaps is the wider, that on the answer's side or the
    other. So neither the largest nor the most lonely option is a good guess.

    Raises:
        RuntimeError: no attempt works, which is a fault of the family.
    """
    rank, lonely = rng.randrange(COUNT), rng.random() < 0.5
    for _ in range(TRIES):
        draft = attempt(rng)
        options = draft and _options(rng, draft, rank)
        if draft and options and _fits(options, rank, lonely):
            texts = tuple(str(number) for number in options)
            return Form(family, depth, draft.data, str(draft.answer), texts)
    raise RuntimeError(f"{family}: no form of depth {depth} in {TRIES} attempts")


def _options(rng: random.Random, draft: Draft, rank: int) -> list[int] | None:
    """`rank` numbers below the answer, the rest above, in random order."""
    answer = draft.answer
    if not _is_free(answer, draft, ()):
        return None
    near = {
        wrong
        for wrong in draft.mistakes
        if answer / WIDEST <= wrong <= answer * WIDEST and _is_free(wrong, draft, (answer,))
    }
    lower = _some(rng, (wrong for wrong in near if wrong < answer), rank)
    upper = _some(rng, (wrong for wrong in near if wrong > answer), COUNT - 1 - rank)
    for side, size, sign in ((lower, rank, -1), (upper, COUNT - 1 - rank, 1)):
        for _ in range(size - len(side)):
            slip = _slip(rng, draft, [answer, *lower, *upper], sign)
            if slip is None:
                return None
            side.append(slip)
    options = [answer, *lower, *upper]
    rng.shuffle(options)
    return options


def _fits(options: list[int], rank: int, lonely: bool) -> bool:
    lowest, low, high, highest = sorted(options)
    gaps = low - lowest, highest - high
    near, far = gaps if rank < COUNT / 2 else gaps[::-1]
    return near >= far if lonely else near <= far


def _some(rng: random.Random, numbers: Iterable[int], count: int) -> list[int]:
    known = sorted(numbers)
    return rng.sample(known, min(count, len(known)))


def _slip(rng: random.Random, draft: Draft, options: list[int], sign: int) -> int | None:
    """A slip of calculation on one side of the answer, near any option so that none is central."""
    reach = max(4, draft.answer // 4)
    free = {
        wrong
        for option in options
        for wrong in range(option - reach, option + reach + 1)
        if (wrong - draft.answer) * sign > 0 and _is_free(wrong, draft, options)
    }
    return rng.choice(sorted(free)) if free else None


def _is_free(number: int, draft: Draft, options: Collection[int]) -> bool:
    allowed = SMALLEST <= number < draft.below and number not in draft.given
    return allowed and number not in options
