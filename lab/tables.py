"""From result lines to means, intervals and comparisons: the numbers of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from poise.evaluate.statistics import Interval

from . import validity
from .comparisons import Comparison, compare, holm, interval_of
from .experiment import Column, Experiment
from .results import Record

Cell = tuple[tuple[Any, ...], str]  # the axes' values, and the method
Values = dict[Cell, dict[int, float]]  # by seed
Along = dict[Any, dict[int, float]]  # an axis's values, and under each the seeds'
Reduction = Callable[[Sequence[Any], Sequence[float], int], float]  # of x, y and the seed


@dataclass(frozen=True)
class Row:
    """One method at one place of the grid."""

    axes: tuple[Any, ...]  # their values
    method: str
    values: Mapping[int, float]  # by seed
    interval: Interval | None  # 95 % over seeds; None with fewer than two
    partner: str | None = None  # the method with which it is compared
    comparison: Comparison | None = None  # with that; None if no seed has both

    @property
    def mean(self) -> float | None:
        """Over seeds; None without any."""
        return float(np.mean(list(self.values.values()))) if self.values else None


@dataclass(frozen=True)
class Section:
    """One figure: a row for each method at each place of the grid, those of a place together."""

    name: str
    column: Column
    axes: tuple[str, ...]
    rows: tuple[Row, ...]


def build(experiment: Experiment, records: Mapping[str, Record]) -> list[Section]:
    """A section for each figure of the table, all comparisons corrected together.

    Where a validity rule does not hold, nothing is compared. Records of other settings do not
    count.

    Raises:
        ValueError: no line has a figure that the table names, or it is no number.
    """
    is_valid = all(verdict.holds for verdict in validity.verdicts(experiment, records))
    sections = [_section(experiment, records, name, is_valid) for name in experiment.table]
    found = [row.comparison for section in sections for row in section.rows]
    p_values = [c.p_value for c in found if c is not None and c.p_value is not None]
    corrected = iter(holm(p_values))

    def with_correction(row: Row) -> Row:
        if row.comparison is None or row.comparison.p_value is None:
            return row
        return replace(row, comparison=replace(row.comparison, corrected=next(corrected)))

    return [replace(s, rows=tuple(map(with_correction, s.rows))) for s in sections]


def comparisons(sections: Sequence[Section]) -> int:
    """For how many tests the p-values are corrected."""
    found = [row.comparison for section in sections for row in section.rows]
    return sum(c is not None and c.p_value is not None for c in found)


def _section(
    experiment: Experiment, records: Mapping[str, Record], name: str, is_valid: bool
) -> Section:
    column = experiment.table[name]
    axes = tuple(axis for axis in experiment.grid if axis != column.over)
    values = _values(experiment, records, column.of or name)
    if column.over is not None:
        values = _reduced(experiment, values, column)
    rows = []
    for (place, method), by_seed in values.items():
        is_rate = column.percent and column.by != "trend"  # which may fall below 0
        interval = interval_of(list(by_seed.values()), is_rate)
        partner = experiment.partner(method, column) if is_valid else None
        row = Row(place, method, by_seed, interval, partner)
        if row.partner is not None:
            comparison = compare(values[place, row.partner], by_seed)
            row = replace(row, comparison=comparison)
        rows.append(row)
    return Section(name, column, axes, tuple(rows))


def _values(experiment: Experiment, records: Mapping[str, Record], name: str) -> Values:
    values: Values = {}
    known: set[str] = set()
    for run in experiment.runs():
        place = tuple(run.place[axis] for axis in experiment.grid)
        by_seed = values.setdefault((place, run.place["method"]), {})
        figures = records.get(run.key, {}).get("figures", {})
        known |= set(figures)
        if (value := figures.get(name)) is None:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(
                f"table: {name}: expected numbers in the results, found {value!r} in the line of "
                f"{run}, key {run.key}; take the line out and run it again"
            )
        by_seed[run.place["seed"]] = float(value)
    if known and name not in known:
        raise ValueError(f"table: no result has a figure {name!r}; they have {sorted(known)}")
    return values


def _reduced(experiment: Experiment, values: Values, column: Column) -> Values:
    """A value a seed from those along an axis; a seed that lacks one of them has none."""
    assert column.over is not None and column.by is not None
    position = list(experiment.grid).index(column.over)
    along: dict[Cell, Along] = {}
    for (place, method), by_seed in values.items():
        rest = place[:position] + place[position + 1 :]
        along.setdefault((rest, method), {})[place[position]] = by_seed
    reduced: Values = {}
    for (rest, method), parts in along.items():
        whole = [s for s in experiment.seeds if all(s in by_seed for by_seed in parts.values())]
        reduce = _REDUCTIONS.get(column.by)
        if reduce is None:
            assert experiment.baseline is not None  # seen to when the experiment was read
            reduce = _range_to(along[rest, experiment.baseline], column)
        found = {s: reduce(list(parts), [by[s] for by in parts.values()], s) for s in whole}
        reduced[rest, method] = {seed: y for seed, y in found.items() if math.isfinite(y)}
    return reduced


def _trend(x: Sequence[float], y: Sequence[float], seed: int) -> float:
    """Of y against x by least squares."""
    return float(stats.linregress(x, y).slope) if len(x) > 1 else math.nan


def _slope(x: Sequence[float], y: Sequence[float], seed: int) -> float:
    """Of log y against log x by least squares; not a number where y is not above 0."""
    if len(x) < 2 or min(y) <= 0:
        return math.nan
    return float(stats.linregress(np.log(x), np.log(y)).slope)


def _range_to(baseline: Along, column: Column) -> Reduction:
    """Decades of x at which y reaches what the baseline has where its mean over seeds is best.

    The bar is the same seed's: a seed on which all do worse than on others takes no range away.
    """
    sign = -1.0 if column.better == "lower" else 1.0
    seeds = set.intersection(*(set(by_seed) for by_seed in baseline.values()))
    best = max(baseline.values(), key=lambda by: sum(sign * by[seed] for seed in seeds))

    def reduce(x: Sequence[Any], y: Sequence[float], seed: int) -> float:
        if seed not in best:
            return math.nan
        steps = np.log10(np.array(x, dtype=float))
        edges = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
        longest, since = 0.0, None
        for place, value in enumerate(y):
            since = place if since is None else since
            if sign * value < sign * best[seed] - column.margin:
                since = None
            else:
                longest = max(longest, float(edges[place + 1] - edges[since]))
        return longest

    return reduce


_REDUCTIONS: Mapping[str, Reduction] = {
    "mean": lambda x, y, seed: float(np.mean(y)),
    "max": lambda x, y, seed: max(y),
    "trend": _trend,
    "slope": _slope,
}
