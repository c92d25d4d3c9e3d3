"""Words for `rates`: what is measured by what, and how each domain says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RateWords:
    """One way of telling rates.

    Args:
        units: Four nouns; each is measured by the one before.
        links: Three sentences with `b` (counted) and `per` (``every 4 minutes``).
        given: How much there is of the first unit, `x`.
        split: A sharing in the ratio `p` to `q` of unit `B`.
        asks: Questions: for an amount of unit `B`, and for the first share.
        steps: Reasoning: with `x`, `a` (counted), `k`, `b`, `y` (counted); for ``a = 1``; for
            the sharing, with `p`, `q`, `n`, `x`, `k`, `y`.
    """

    units: tuple[str, str, str, str]
    links: tuple[str, str, str]
    given: str
    split: str
    asks: tuple[str, str]
    steps: tuple[str, str, str]
