"""From result lines to means, intervals and comparisons: the numbers of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from ..evaluation.statistics import Interval
from .comparisons import Comparison, compare, holm, interval_of
from .experiment import Column, Experiment
from .results import Record

Cell = tuple[tuple[Any, ...], str]  # the axes' values, and the method
Values = dict[Cell, dict[int, float]]  # by seed
Reduction = Callable[[Sequence[Any], Sequence[float]], float]


@dataclass(frozen=True)
class Row:
    """One method at one place of the grid.

    Args:
        axes: The axes' values.
        method: Its name.
        values: By seed.
        interval: 95 % over seeds; None with fewer than two.
        comparison: With its partner, mostly the baseline; None where there is none.
    """

    axes: tuple[Any, ...]
    method: str
    values: Mapping[int, float]
    interval: Interval | None
    comparison: Comparison | None = None

    @property
    def mean(self) -> float | None:
        """Over seeds; None without any."""
        return float(np.mean(list(self.values.values()))) if self.values else None


@dataclass(frozen=True)
class Section:
    """One figure: a row for each method at each place of the grid.

    Args:
        name: Of the figure.
        column: How it is shown.
        axes: Names of the axes that the rows have.
        rows: The methods of one place stand together.
    """

    name: str
    column: Column
    axes: tuple[str, ...]
    rows: tuple[Row, ...]


def build(experiment: Experiment, records: Mapping[str, Record]) -> list[Section]:
    """A section for each figure of the table, all comparisons corrected together.

    Args:
        experiment: Says what is shown.
        records: Result lines by key; those of other settings are left out.

    Raises:
        ValueError: no line has a figure that the table names, or it is no number.
    """
    sections = [_section(experiment, records, name) for name in experiment.table]
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


def _section(experiment: Experiment, records: Mapping[str, Record], name: str) -> Section:
    column = experiment.table[name]
    axes = tuple(axis for axis in experiment.grid if axis != column.over)
    values = _values(experiment, records, column.of or name)
    if column.over is not None:
        values = _reduced(experiment, values, column)
    rows = []
    for (place, method), by_seed in values.items():
        interval = interval_of(list(by_seed.values()), is_rate=column.percent)
        row = Row(place, method, by_seed, interval)
        partner = experiment.partner(method)
        if column.compare and partner is not None:
            comparison = compare(values[place, partner], by_seed, column.test)
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
        if not isinstance(value, int | float):
            raise ValueError(f"table: {name}: expected numbers in the results, found {value!r}")
        by_seed[run.place["seed"]] = float(value)
    if known and name not in known:
        raise ValueError(f"table: no result has a figure {name!r}; they have {sorted(known)}")
    return values


def _reduced(experiment: Experiment, values: Values, column: Column) -> Values:
    """A value a seed from those along an axis; a seed that lacks one of them has none."""
    assert column.over is not None and column.by is not None
    position = list(experiment.grid).index(column.over)
    along: dict[Cell, dict[Any, dict[int, float]]] = {}
    for (place, method), by_seed in values.items():
        rest = place[:position] + place[position + 1 :]
        along.setdefault((rest, method), {})[place[position]] = by_seed
    reduce = _range_over(along, column, experiment) if column.by == "range" else None
    reduce = reduce or _REDUCTIONS[column.by]
    reduced: Values = {}
    for cell, parts in along.items():
        whole = [s for s in experiment.seeds if all(s in by_seed for by_seed in parts.values())]
        found = {s: reduce(list(parts), [by_seed[s] for by_seed in parts.values()]) for s in whole}
        reduced[cell] = {seed: value for seed, value in found.items() if math.isfinite(value)}
    return reduced


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of log y against log x by least squares; not a number where y is not above 0."""
    if len(x) < 2 or min(y) <= 0:
        return math.nan
    return float(stats.linregress(np.log(x), np.log(y)).slope)


def _range_over(
    along: Mapping[Cell, Mapping[Any, Mapping[int, float]]], column: Column, experiment: Experiment
) -> Reduction:
    """Decades of x at which y reaches the baseline's best mean, less the margin."""
    means = [
        float(np.mean(list(by_seed.values())))
        for (_, method), parts in along.items()
        if method == experiment.baseline
        for by_seed in parts.values()
        if by_seed
    ]
    sign = -1.0 if column.better == "lower" else 1.0
    bar = max((sign * mean for mean in means), default=math.inf) - column.margin

    def reduce(x: Sequence[Any], y: Sequence[float]) -> float:
        steps = np.log10(np.array(x, dtype=float))
        edges = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
        longest, since = 0.0, None
        for place, value in enumerate(y):
            since = place if since is None else since
            if sign * value < bar:
                since = None
            else:
                longest = max(longest, float(edges[place + 1] - edges[since]))
        return longest

    return reduce


_REDUCTIONS: Mapping[str, Reduction] = {
    "mean": lambda x, y: float(np.mean(y)),
    "max": lambda x, y: max(y),
    "min": lambda x, y: min(y),
    "slope": _slope,
}
