"""The figure of an experiment: means with 95 % intervals over seeds, one line a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluation.plots import COLOURS
from ..evaluation.summary import shown
from .experiment import Experiment, Plot
from .tables import Row, Section

_MARKERS = "os^Dv<>"
_DASHES = ("-", "--", ":")


def save(experiment: Experiment, sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write `figure.png` and `figure.svg`; the same results give the same files.

    Returns:
        What was written; nothing where the experiment describes no figure.
    """
    if experiment.plot is None:
        return []
    paths = [folder / "figure.png", folder / "figure.svg"]
    with matplotlib.rc_context({"svg.hashsalt": "poise"}):
        figure = draw(experiment, experiment.plot, sections)
        for path in paths:
            date = {"Date": None} if path.suffix == ".svg" else {}
            figure.savefig(path, dpi=160, metadata=date)
    return paths


def draw(experiment: Experiment, plot: Plot, sections: Sequence[Section]) -> Figure:
    """One panel for each figure and each place on the axes that are not drawn."""
    panels = [
        (section, rest)
        for section in sections
        if section.name in plot.y
        for rest in dict.fromkeys(_rest(section, row, plot) for row in section.rows)
    ]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(0.8 + 3.8 * columns, 0.8 + 2.9 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (section, rest) in zip(grid.flat, panels, strict=False):
        rows = [row for row in section.rows if _rest(section, row, plot) == rest]
        _panel(axes, experiment, plot, section, rows)
        axes.set_title(", ".join(f"{n} {shown(v)}" for n, v in rest), loc="left", fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return figure


def _rest(section: Section, row: Row, plot: Plot) -> tuple[tuple[str, Any], ...]:
    """The axes that are not drawn, with their values."""
    pairs = zip(section.axes, row.axes, strict=True)
    return tuple((name, value) for name, value in pairs if name != plot.x)


def _panel(
    axes: Axes, experiment: Experiment, plot: Plot, section: Section, rows: Sequence[Row]
) -> None:
    unit = 100.0 if section.column.percent else 1.0
    for i, method in enumerate(experiment.methods):
        own = [row for row in rows if row.method == method]
        xs, labels = _places(experiment, plot, section, own, i)
        known = [(x, row) for x, row in zip(xs, own, strict=True) if row.mean is not None]
        means = np.array([row.mean for _, row in known], dtype=float)
        ends = [
            (row.interval.low, row.interval.high) if row.interval else (row.mean,) * 2
            for _, row in known
        ]
        low, high = np.array(ends, dtype=float).reshape(-1, 2).T
        axes.errorbar(
            [x for x, _ in known],
            unit * means,
            yerr=unit * np.stack([means - low, high - means]),
            label=method,
            color=COLOURS[i % len(COLOURS)],
            marker=_MARKERS[i % len(_MARKERS)],
            linestyle=_DASHES[i // len(COLOURS) % len(_DASHES)] if plot.x else "",
            markersize=4,
            linewidth=1.4,
            capsize=2.5,
        )
        if labels:
            axes.set_xticks(range(len(labels)), labels, fontsize=8.5)
    _dress(axes, plot, f"{section.name}, %" if section.column.percent else section.name)


def _places(
    experiment: Experiment, plot: Plot, section: Section, rows: Sequence[Row], method: int
) -> tuple[list[float], list[str]]:
    """Where the rows of a method stand on x, and the labels of x where it is no number."""
    if plot.x is None:
        return [float(method)] * len(rows), list(experiment.methods)
    position = section.axes.index(plot.x)
    values = list(experiment.grid[plot.x])
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return [float(row.axes[position]) for row in rows], []
    return [float(values.index(row.axes[position])) for row in rows], [shown(v) for v in values]


def _dress(axes: Axes, plot: Plot, label: str) -> None:
    axes.set_xlabel(plot.x or "", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if "x" in plot.log:
        axes.set_xscale("log")
    if "y" in plot.log:
        axes.set_yscale("log", nonpositive="clip")
