"""Wrong options that do not give the right one away.

Distractors that are all slips around the right value tell it: it is the one to which the others
relate. So the four options form a grid: the right value v, a step a, another step b, and both
steps, as if two independent mistakes had been made or not,

    v, v ∘ a, v ∘ b, v ∘ a ∘ b.

Every corner of such a grid looks alike. Steps come from typical mistakes, forwards and backwards
with equal chance (a factor forgotten, or applied twice), or are plain slips; how many options lie
below the right one is drawn first, evenly. What a step is depends on the scale: a factor for
quantities, a factor of the odds for shares, a difference for logarithms.

Only sums, products and quotients are taken here, which are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Protocol

# A careful solver may round on the way; no wrong option lies within five per cent.
GAP = 0.05
SLIPS = (6 / 5, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 2.0, 5 / 2, 3.0, 4.0, 10.0)
MISTAKE_CHANCE = 0.7
PICKY_TRIES = 100
MAX_TRIES = 500


class Scale(Protocol):
    """How two values of a quantity are compared."""

    def step(self, start: float, end: float) -> float:
        """The step from one value to another."""

    def apply(self, start: float, step: float) -> float:
        """The value after a step."""

    def back(self, step: float) -> float:
        """The step that undoes a step."""

    def slips(self) -> Iterable[float]:
        """Steps upwards that need no story."""

    def holds(self, value: float) -> bool:
        """Whether a value may be an option."""

    def apart(self, first: float, second: float) -> bool:
        """Whether two options are far enough from each other."""


@dataclass(frozen=True)
class Ratios:
    """Positive quantities: steps are factors."""

    def step(self, start: float, end: float) -> float:
        return end / start

    def apply(self, start: float, step: float) -> float:
        return start * step

    def back(self, step: float) -> float:
        return 1 / step

    def slips(self) -> Iterable[float]:
        return SLIPS

    def holds(self, value: float) -> bool:
        return value > 0

    def apart(self, first: float, second: float) -> bool:
        return abs(first - second) >= GAP * max(first, second)


@dataclass(frozen=True)
class Odds(Ratios):
    """Shares between zero and a bound: steps are factors of the odds."""

    bound: float

    def step(self, start: float, end: float) -> float:
        return (end / (self.bound - end)) / (start / (self.bound - start))

    def apply(self, start: float, step: float) -> float:
        odds = start / (self.bound - start) * step
        return self.bound * odds / (1 + odds)

    def holds(self, value: float) -> bool:
        return 0 < value < self.bound

    def apart(self, first: float, second: float) -> bool:
        room = self.bound - max(first, second)
        return abs(first - second) >= GAP * min(max(first, second), room)


@dataclass(frozen=True)
class Differences:
    """Logarithmic quantities between zero and a bound: steps are differences."""

    unit: float
    bound: float

    def step(self, start: float, end: float) -> float:
        return end - start

    def apply(self, start: float, step: float) -> float:
        return start + step

    def back(self, step: float) -> float:
        return -step

    def slips(self) -> Iterable[float]:
        return [self.unit * times for times in range(1, 8)]

    def holds(self, value: float) -> bool:
        return 0 < value < self.bound

    def apart(self, first: float, second: float) -> bool:
        return abs(first - second) >= self.unit / 2


def grid(
    rng: Random,
    right: float,
    wrong: Iterable[float],
    scale: Scale,
    accept: Callable[[list[float]], bool],
    prefer: Callable[[list[float]], bool],
) -> list[float]:
    """Build the grid of options; the right value comes first.

    Args:
        wrong: What typical mistakes give.
        scale: The kind of quantity.
        accept: A last word on the four values, e.g. that they differ when written.
        prefer: What is nice to have, e.g. that they are equally long when written.

    Raises:
        ValueError: If no grid fits.
    """
    under = rng.randrange(4)
    pools = _pools(right, wrong, scale)
    for attempt in range(MAX_TRIES):
        first, second = _pick(rng, pools[under < 3]), _pick(rng, pools[under < 1])
        corner = scale.apply(right, first)
        values = [right, corner, scale.apply(right, second), scale.apply(corner, second)]
        if sum(v < right for v in values) != under or not _valid(values, scale):
            continue
        if accept(values) and (attempt >= PICKY_TRIES or prefer(values)):
            return values
    raise ValueError(f"no grid of options fits around {right} with {under} below it")


Pool = tuple[list[float], list[float]]  # mistakes, slips


def _pools(right: float, wrong: Iterable[float], scale: Scale) -> dict[bool, Pool]:
    """Steps upwards (True) and downwards (False), each mistake in both directions."""
    ends = [end for end in wrong if scale.holds(end) and scale.apart(end, right)]
    forwards = [scale.step(right, end) for end in ends]
    steps = sorted({*forwards, *map(scale.back, forwards)})
    slips = list(scale.slips())
    return {
        True: ([step for step in steps if scale.apply(right, step) > right], slips),
        False: (
            [step for step in steps if scale.apply(right, step) < right],
            [scale.back(slip) for slip in slips],
        ),
    }


def _pick(rng: Random, pool: Pool) -> float:
    known, slips = pool
    return rng.choice(known if known and rng.random() < MISTAKE_CHANCE else slips)


def _valid(values: list[float], scale: Scale) -> bool:
    return all(map(scale.holds, values)) and all(
        scale.apart(first, second) for first, second in combinations(values, 2)
    )
