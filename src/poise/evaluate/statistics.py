"""Intervals and tests for values per question, all with scipy and a fixed seed.

The unit of resampling is the question, not the sample: the k samples of one question are not
independent pieces of evidence about other questions. Nor are questions evidence about other seeds:
over runs, the unit is the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 9999
_BATCH = 1000  # resamples held in memory at a time
_SEED = 0
_EQUAL = 1e-12  # values closer than this differ by rounding alone


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    method: str  # how it was made: "wilson", "bca", "constant", "t" or "mover"


@dataclass(frozen=True)
class Difference:
    """A paired difference, after minus before, over a number of questions."""

    interval: Interval
    p_value: float  # two-sided, of the null hypothesis that before and after are exchangeable
    questions: int


def mean_interval(values: ArrayLike, highest: float = 1.0) -> Interval:
    """Mean of values in [0, highest], one a question, with its confidence interval.

    Where all values are ends of the range (k = 1): Wilson's score interval. Else the bias-corrected
    and accelerated bootstrap (BCa) over questions; for equal values see `_bootstrap`.

    Raises:
        ValueError: No value, or a value outside the range.

    Source: Wilson, JASA 22 (1927); Efron, JASA 82 (1987).
    """
    sample = _checked(np.asarray(values, dtype=np.float64) / highest)
    if np.isin(sample, (0.0, 1.0)).all():
        low, high = _wilson(int(sample.sum()), len(sample))
        found = Interval(float(sample.mean()), low, high, "wilson")
    else:
        found = _bootstrap(sample, 0.0)
    mean, low, high = (highest * x for x in (found.mean, found.low, found.high))
    return Interval(mean, low, high, found.method)


def paired_difference(before: ArrayLike, after: ArrayLike) -> Difference:
    """Mean of after - before on the same questions, with interval and p-value.

    The interval is the BCa bootstrap over questions; the p-value comes from a permutation test
    that swaps before and after within questions (exact where there are few questions).

    Raises:
        ValueError: Different or zero numbers of questions, a value outside [0, 1].
    """
    first, second = (_checked(np.asarray(x, dtype=np.float64)) for x in (before, after))
    if first.shape != second.shape:
        raise ValueError(
            "paired difference: expected as many values before as after, found "
            f"{len(first)} and {len(second)}"
        )
    interval = _bootstrap(second - first, -1.0)
    return Difference(interval, _permutation_p(first, second), len(first))


def mean_of(intervals: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Weighted mean of independent estimates.

    ``mean - low = sqrt(sum_i (w_i (mean_i - low_i))^2)``, and likewise above: as variances add,
    but lopsided intervals stay lopsided. One estimate keeps its own interval.

    Raises:
        ValueError: There are none, or not as many weights, or these do not sum to 1.

    Source: Zou and Donner, Statistics in Medicine 27 (2008), variance estimates recovery (MOVER).
    """
    if not intervals or len(weights) != len(intervals) or not math.isclose(sum(weights), 1.0):
        raise ValueError(
            f"mean of intervals: expected one or more with weights that sum to 1, found "
            f"{len(intervals)} with {list(weights)}"
        )
    if len(intervals) == 1:
        return intervals[0]
    parts = list(zip(weights, intervals, strict=True))
    mean = sum(w * i.mean for w, i in parts)
    below = math.hypot(*(w * (i.mean - i.low) for w, i in parts))
    above = math.hypot(*(w * (i.high - i.mean) for w, i in parts))
    return Interval(mean, mean - below, mean + above, "mover")


def mean_difference(pairs: Sequence[tuple[Values, Values]], weights: Sequence[float]) -> Difference:
    """Weighted mean of the paired differences (before, after) of independent groups of questions.

    Raises:
        ValueError: As `mean_of` and `paired_difference`.
    """
    parts = [paired_difference(*pair) for pair in pairs]
    interval = mean_of([part.interval for part in parts], weights)
    if len(parts) == 1:
        return parts[0]
    # Scaled so that the plain mean over all values is the weighted mean over groups.
    first, second = (
        np.concatenate([w * x[side] / len(x[side]) for w, x in zip(weights, pairs, strict=True)])
        for side in (0, 1)
    )
    questions = sum(part.questions for part in parts)
    return Difference(interval, _permutation_p(first, second), questions)


def run_interval(values: ArrayLike) -> Interval:
    """Mean of one value a run, with Student's t-interval: what another seed would bring.

    Raises:
        ValueError: Fewer than two values, or a value that is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(f"interval over runs: expected two or more finite values, found {sample}")
    mean = float(sample.mean())
    if np.ptp(sample) <= _EQUAL:
        return Interval(mean, mean, mean, "t")
    low, high = stats.t.interval(CONFIDENCE, len(sample) - 1, loc=mean, scale=stats.sem(sample))
    return Interval(mean, float(low), float(high), "t")


def _checked(sample: Values) -> Values:
    """Values in [0, 1]; what rounding has put outside is put back."""
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"interval: expected one value a question, found shape {sample.shape}")
    if not ((sample >= -_EQUAL) & (sample <= 1.0 + _EQUAL)).all():
        raise ValueError("interval: expected values in [0, highest], found others")
    return np.clip(sample, 0.0, 1.0)


def _bootstrap(sample: Values, lowest: float) -> Interval:
    """BCa interval of values in [lowest, 1].

    Choice: n equal values leave room for a share u of others, Wilson's upper end for none seen
    among n, anywhere in the range: from value - u (value - lowest) to value + u (1 - value). For
    zeros or ones this is Wilson's interval itself.
    """
    if np.ptp(sample) <= _EQUAL:
        value, (_, other) = float(sample[0]), _wilson(0, len(sample))
        low, high = value - other * (value - lowest), value + other * (1.0 - value)
        return Interval(value, low, high, "constant")
    ends = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(float(sample.mean()), float(ends.low), float(ends.high), "bca")


def _wilson(successes: int, n: int) -> tuple[float, float]:
    ends = stats.binomtest(successes, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(ends.low), float(ends.high)


def _permutation_p(before: Values, after: Values) -> float:
    if len(before) < 2 or np.abs(after - before).max() <= _EQUAL:
        return 1.0  # one pair, or equal ones, can tell nothing
    test = stats.permutation_test(
        (before, after),
        lambda x, y, axis: np.mean(y - x, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        rng=np.random.default_rng(_SEED),
    )
    return float(test.pvalue)
