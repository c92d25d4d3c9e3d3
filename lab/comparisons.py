"""Paired comparisons over seeds, corrected for their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from poise.evaluate.statistics import Interval, mean_interval, run_interval

_EQUAL = 1e-12  # differences closer than this, relative to the values, differ by rounding alone


@dataclass(frozen=True)
class Comparison:
    """A method minus its partner, on the seeds that both have."""

    seeds: int  # how many those are
    mean: float
    interval: Interval | None  # 95 %; None with fewer than two seeds
    p_value: float | None  # uncorrected; likewise
    corrected: float | None = None  # by Holm's correction, once `holm` has seen all of them


def interval_of(values: Sequence[float], is_rate: bool = False) -> Interval | None:
    """Student's 95 % interval over seeds; None with fewer than two.

    Choice: of rates it ends at 0 and 1, and where each seed has 0 or 1 it is Wilson's: ten
    survivors of ten are no certainty.
    """
    if len(values) < 2:
        return None
    if is_rate and set(values) <= {0.0, 1.0}:
        return mean_interval(values)
    found = run_interval(values)
    if not is_rate:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def compare(baseline: Mapping[int, float], method: Mapping[int, float]) -> Comparison | None:
    """Difference by seed (seed -> value), with Student's paired test; None if none is in both."""
    seeds = sorted(set(baseline) & set(method))
    if not seeds:
        return None
    before = np.array([baseline[seed] for seed in seeds])
    after = np.array([method[seed] for seed in seeds])
    differences = after - before
    # What differs by rounding alone is equal, and equal differences have no spread.
    scale = max(float(np.abs([before, after]).max()), 1e-300)
    differences[np.abs(differences) <= _EQUAL * scale] = 0.0
    p_value = _p_value(differences, scale) if len(seeds) > 1 else None
    return Comparison(
        len(seeds), float(differences.mean()), interval_of(differences.tolist()), p_value
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the family-wise error holds over all of them.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def _p_value(differences: NDArray[np.float64], scale: float) -> float:
    """Choice: without any difference p is 1; without spread, where t is infinite, Wilcoxon's signed
    ranks decide."""
    if not differences.any():
        return 1.0
    if np.ptp(differences) > _EQUAL * scale:
        return float(stats.ttest_1samp(differences, 0.0).pvalue)
    return float(stats.wilcoxon(differences).pvalue)
