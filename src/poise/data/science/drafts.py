"""Drafts with plausible wrong options.

A right answer must not be told by its looks. So the rank of the right number among the four is
drawn first, evenly, and only then are wrong values chosen: typical mistakes on the needed
side, and slips (a factor, a power of ten, a neighbour) where mistakes do not suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random

from .numbers import Number, alike, fixed, is_plain
from .registry import Draft

Writer = Callable[[Sequence[Number]], list[str]]

# A careful solver may round on the way; no wrong option lies within five per cent.
GAP = 0.05
FACTORS_DOWN = (1 / 2, 1 / 3, 1 / 4, 2 / 3, 3 / 4, 1 / 10, 4 / 5)
FACTORS_UP = (2, 3, 4, 3 / 2, 4 / 3, 10, 5 / 4)
SHARES_UP = (0.2, 0.35, 0.5, 0.65, 0.8)  # of the room up to a bound


def mistakes(*values: Number) -> tuple[Number, ...]:
    """What a solver gets who makes a typical mistake, one value for each."""
    return values


def choice(
    stem: str, given: Iterable[object], answer: str, others: Sequence[str], steps: Sequence[str]
) -> Draft:
    """A draft from texts; ``others`` are exactly three."""
    first, second, third = others
    return Draft(stem, tuple(given), answer, (first, second, third), tuple(steps))


def numeric(
    rng: Random,
    stem: str,
    given: Iterable[object],
    value: Number,
    unit: str = "",
    wrong: Iterable[Number] = (),
    steps: Sequence[str] = (),
    *,
    digits: int = 3,
    places: int | None = None,
    step: float | None = None,
    below: float | None = None,
) -> Draft:
    """A draft whose options are numbers.

    The last of ``steps`` is an expression; ``= <answer>`` is written behind it.

    Args:
        wrong: What typical mistakes give. Values too near to others are left out, and so are
            those that would need another way of writing than the right one.
        digits: Significant digits of all options.
        places: Decimal places instead of significant digits (0 for counts).
        step: Slips are multiples of this, for logarithmic scales and counts, not factors.
        below: The options are less than this, as probabilities are less than one.
    """
    write = _writer(digits, places)
    pool = [n for n in wrong if _fits(n, below) and is_plain(n) == is_plain(value)]
    slips, margin = _slips(value, step, below), _margin(value, step, below)
    rng.shuffle(pool)
    chosen = [value]
    under = rng.randrange(4)
    for side, needed in ((-1, under), (1, 3 - under)):
        candidates: list[Number] = [*pool, *rng.sample(slips, len(slips))]
        on_side = (c for c in candidates if _fits(c, below) and (c > value) == (side > 0))
        for candidate in on_side:
            if needed and _clear(candidate, chosen, margin) and _distinct(write, candidate, chosen):
                chosen.append(candidate)
                needed -= 1
        if needed:
            raise ValueError(f"no three wrong options around {value} for {stem!r}")
    space = "" if unit in ("%", "°") else " "
    texts = [f"{text}{space}{unit}".rstrip() for text in write(chosen)]
    done = (*steps[:-1], f"{steps[-1]} = {texts[0]}.")
    return choice(stem, given, texts[0], texts[1:], done)


def count(
    rng: Random,
    stem: str,
    given: Iterable[object],
    value: Number,
    unit: str = "",
    wrong: Iterable[Number] = (),
    steps: Sequence[str] = (),
) -> Draft:
    """`numeric` for whole numbers: mistakes that are not whole are left out.

    Raises:
        ValueError: If the value itself is not whole.
    """
    if value != int(value):
        raise ValueError(f"expected a whole number as the answer of {stem!r}, found {value}")
    whole = [n for n in wrong if n == int(n)]
    step = max(1, round(float(value) / 10))
    return numeric(rng, stem, given, value, unit, whole, steps, places=0, step=step)


def _writer(digits: int, places: int | None) -> Writer:
    if places is None:
        return lambda values: alike(values, digits)
    return lambda values: [fixed(value, places) for value in values]


def _fits(number: Number, below: float | None) -> bool:
    return number > 0 and (below is None or number < below)


def _margin(value: Number, step: float | None, below: float | None) -> float:
    """How far apart options are at least, and never so far that three do not fit."""
    if step:
        return 0.9 * step
    number = float(value)
    return GAP * (number if below is None else min(number, below - number))


def _clear(candidate: Number, chosen: Sequence[Number], margin: float) -> bool:
    return all(abs(float(candidate) - float(other)) >= margin for other in chosen)


def _distinct(write: Writer, candidate: Number, chosen: Sequence[Number]) -> bool:
    return len(set(write([*chosen, candidate]))) == len(chosen) + 1


def _slips(value: Number, step: float | None, below: float | None) -> list[float]:
    """Wrong values without a story, on both sides of the right one."""
    number = float(value)
    if step:
        return [number + sign * step * times for times in range(1, 8) for sign in (-1, 1)]
    if below is None:
        return [number * factor for factor in (*FACTORS_DOWN, *FACTORS_UP)]
    room = below - number
    return [number * f for f in FACTORS_DOWN] + [number + room * share for share in SHARES_UP]
