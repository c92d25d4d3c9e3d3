"""Drafts: a stem, the right option, three wrong ones, a worked solution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Form:
    """The one way in which the options of a question are written."""

    plain: bool
    unit: str
    places: int | None

    def number(self, value: Number) -> str:
        """Write a number without its unit."""
        if self.places is not None:
            return fixed(value, self.places)
        return significant(value, 3) if self.plain else scientific(value, 3)

    def write(self, value: Number) -> str:
        """Write an option."""
        space = "" if self.unit in ("%", "°") else " "
        return f"{self.number(value)}{space}{self.unit}".rstrip()

    def accepts(self, values: Sequence[float]) -> bool:
        """Whether values can be options together: different, and none of them silly."""
        near = all(SMALLEST <= value < LARGEST for value in values)
        return (
            (near or not self.plain)
            and max(values) <= WIDEST * min(values)
            and len(set(map(self.number, values))) == len(values)
        )

    def is_even(self, values: Sequence[float]) -> bool:
        """Whether all are equally long."""
        if self.places is not None or not self.plain:
            return len({len(self.number(value)) for value in values}) == 1
        return len(set(map(width, values))) == 1


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
    form = Form(is_plain(value), unit, places)
    likely = [float(number) for number in wrong if number > 0]

    def others(rng: Random) -> list[str]:
        scale = _scale(step, below)
        values = grid(rng, float(value), likely, scale, form.accepts, form.is_even)
        return [form.write(number) for number in values[1:]]

    answer = form.write(value)
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
