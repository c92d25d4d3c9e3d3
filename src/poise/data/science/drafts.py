"""Drafts: a stem, the right option, three wrong ones, a worked solution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from .grids import Differences, Odds, Ratios, Scale, grid
from .numbers import Number, fixed, is_plain, scientific, significant, width
from .registry import Draft

# Options look silly beyond these: the largest over the smallest, and what is written in full.
WIDEST = 2000
SMALLEST, LARGEST = 1e-4, 1e8


def mistakes(*values: Number) -> tuple[Number, ...]:
    """What a solver gets who makes a typical mistake, one value for each."""
    return values


def choice(
    stem: str, given: Iterable[object], answer: str, others: Sequence[str], steps: Sequence[str]
) -> Draft:
    """A draft from texts; ``others`` are exactly three."""
    return Draft(stem, tuple(given), answer, lambda rng: others, tuple(steps))


def numeric(
    stem: str,
    given: Iterable[object],
    value: Number,
    unit: str = "",
    wrong: Iterable[Number] = (),
    steps: Sequence[str] = (),
    *,
    places: int | None = None,
    step: float | None = None,
    below: int | None = None,
) -> Draft:
    """A draft whose options are numbers of three significant digits.

    The last of ``steps`` is an expression; ``= <answer>`` is written behind it.

    Args:
        wrong: What typical mistakes give.
        places: Decimal places, instead of significant digits.
        step: The unit of plain slips, for logarithmic quantities.
        below: A bound of all options, as shares are less than 100 %.
    """
    form = significant if is_plain(value) else scientific
    space = "" if unit in ("%", "°") else " "

    def write(number: Number) -> str:
        text = form(number, 3) if places is None else fixed(number, places)
        return f"{text}{space}{unit}".rstrip()

    def accept(values: Sequence[float]) -> bool:
        near = all(SMALLEST <= number < LARGEST for number in values)
        return (
            (near or form is scientific)
            and max(values) <= WIDEST * min(values)
            and len({write(number) for number in values}) == len(values)
        )

    def equally_long(values: Sequence[float]) -> bool:
        return len({width(v) if places is None else len(fixed(v, places)) for v in values}) == 1

    likely = [float(number) for number in wrong if number > 0]

    def others(rng: Random) -> list[str]:
        values = grid(rng, float(value), likely, _scale(step, below), accept, equally_long)
        return [write(number) for number in values[1:]]

    answer = write(value)
    return Draft(stem, tuple(given), answer, others, (*steps[:-1], f"{steps[-1]} = {answer}."))


def _scale(step: float | None, below: int | None) -> Scale:
    if step is not None:
        return Differences(step, below or 100)
    return Ratios() if below is None else Odds(below)


def count(
    stem: str,
    given: Iterable[object],
    value: Number,
    unit: str = "",
    wrong: Iterable[Number] = (),
    steps: Sequence[str] = (),
) -> Draft:
    """`numeric` for whole numbers.

    Raises:
        ValueError: If the value itself is not whole.
    """
    if value != int(value):
        raise ValueError(f"expected a whole number as the answer of {stem!r}, found {value}")
    return numeric(stem, given, value, unit, wrong, steps, places=0)
