"""The figure of an experiment: means with 95 % intervals over seeds.

Along an axis of the grid one line a method; without one the methods below each other, as paired
differences to the baseline where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poise.evaluate.measures import shown
from poise.evaluate.plots import COLOURS, dress

from .comparisons import Comparison
from .experiment import Experiment, Plot
from .tables import Row, Section

_MARKERS = "os^Dv<>"
_DASHES = ("-", "--", ":")
_LINE: dict[str, Any] = {"markersize": 4, "linewidth": 1.4, "capsize": 2.5}


def save(experiment: Experiment, sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write `figure.png`; the same results give the same file.

    Returns:
        What was written; nothing where the experiment describes no figure.
    """
    if experiment.plot is None:
        return []
    path = folder / "figure.png"
    draw(experiment, experiment.plot, sections).savefig(path, dpi=160)
    return [path]


def draw(experiment: Experiment, plot: Plot, sections: Sequence[Section]) -> Figure:
    """One panel for each figure and each place on the axes that are not drawn."""
    panels = [
        (section, rest)
        for section in sections
        if section.name in plot.y
        for rest in dict.fromkeys(_rest(section, row, plot) for row in section.rows)
    ]
    methods = plot.methods or tuple(experiment.methods)
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=_size(methods, plot, columns, lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=plot.x is None)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (section, rest) in zip(grid.flat, panels, strict=False):
        drawn = [row for row in section.rows if row.method in methods]
        rows = [row for row in drawn if _rest(section, row, plot) == rest]
        if plot.x is None:
            _side_by_side(axes, experiment, plot, section, rows)
        else:
            _curves(axes, methods, experiment, plot, section, rows)
        axes.set_title(", ".join(f"{n} {shown(v)}" for n, v in rest), loc="left", fontsize=10)
    if plot.x is not None:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _size(methods: Sequence[str], plot: Plot, columns: int, lines: int) -> tuple[float, float]:
    """Width and height in inches."""
    longest, count = max(map(len, methods)), len(methods)
    if plot.x is None:
        return 0.3 + 0.075 * longest + 3.0 * columns, lines * (0.8 + 0.22 * count)
    return 0.8 + 0.075 * longest + 3.8 * columns, max(0.4 + 2.9 * lines, 0.19 * count)


def _rest(section: Section, row: Row, plot: Plot) -> tuple[tuple[str, Any], ...]:
    """The axes that are not drawn, with their values."""
    pairs = zip(section.axes, row.axes, strict=True)
    return tuple((name, value) for name, value in pairs if name != plot.x)


def _side_by_side(
    axes: Axes, experiment: Experiment, plot: Plot, section: Section, rows: Sequence[Row]
) -> None:
    unit = 100.0 if section.column.percent else 1.0
    baseline, compared = experiment.baseline, any(row.comparison for row in rows)
    rows = [row for row in rows if bool(row.comparison) == compared]
    points: list[Row | Comparison] = [row.comparison or row for row in rows]
    names = [
        row.method + (f"\nto {row.partner}" if row.partner not in (None, baseline) else "")
        for row in rows
    ]
    for place, point in enumerate(points):
        if point.mean is not None:
            low, high = _ends(point)
            errors = unit * np.array([[point.mean - low], [high - point.mean]])
            axes.errorbar(
                unit * point.mean, place, xerr=errors, color=COLOURS[0], marker="o", **_LINE
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the first method on top
    label = f"{section.name}{', %' if section.column.percent else ''}"
    if compared:
        axes.axvline(0, color="#888888", linewidth=1)
        label = f"{section.name},\n{'points' if unit == 100 else 'difference'} to {baseline}"
    dress(axes)
    axes.set_xlabel(label, fontsize=9)
    if "y" in plot.log and not compared and any(point.mean for point in points):
        axes.set_xscale("log", nonpositive="clip")


def _ends(point: Row | Comparison) -> tuple[float, float]:
    """Of the interval; the mean itself where there is none."""
    if point.interval is not None:
        return point.interval.low, point.interval.high
    mean = math.nan if point.mean is None else point.mean
    return mean, mean


def _curves(
    axes: Axes,
    methods: Sequence[str],
    experiment: Experiment,
    plot: Plot,
    section: Section,
    rows: Sequence[Row],
) -> None:
    unit = 100.0 if section.column.percent else 1.0
    for i, method in enumerate(methods):
        own = [row for row in rows if row.method == method]
        xs, labels = _places(experiment, plot, section, own)
        known = [(x, row) for x, row in zip(xs, own, strict=True) if row.mean is not None]
        means = np.array([row.mean for _, row in known], dtype=float)
        ends = [_ends(row) for _, row in known]
        low, high = np.array(ends, dtype=float).reshape(-1, 2).T
        axes.errorbar(
            [x for x, _ in known],
            unit * means,
            yerr=unit * np.stack([means - low, high - means]),
            label=method,
            color=COLOURS[i % len(COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=_DASHES[i // len(COLOURS) % len(_DASHES)],
            **_LINE,
        )
        if labels:
            axes.set_xticks(range(len(labels)), labels)
    dress(axes)
    axes.set_xlabel(plot.x or "", fontsize=9)
    axes.set_ylabel(f"{section.name}, %" if section.column.percent else section.name, fontsize=9)
    if section.column.percent:  # intervals may go beyond what a rate can be
        bottom, top = axes.get_ybound()
        axes.set_ybound(max(bottom, -4.0), min(top, 104.0))
    if "x" in plot.log:
        axes.set_xscale("log")
    if "y" in plot.log and any(row.mean for row in rows):  # an empty panel has no logarithms
        axes.set_yscale("log", nonpositive="clip")


def _places(
    experiment: Experiment, plot: Plot, section: Section, rows: Sequence[Row]
) -> tuple[list[float], list[str]]:
    """Where rows stand on x, and the labels of x where it is no number."""
    assert plot.x is not None
    position = section.axes.index(plot.x)
    values = list(experiment.grid[plot.x])
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(row.axes[position]) for row in rows], []
    return [float(values.index(row.axes[position])) for row in rows], [shown(v) for v in values]
