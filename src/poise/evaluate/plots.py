"""Curves of training runs as SVG images, drawn without matplotlib's global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .panels import Panel
from .runs import Run
from .statistics import Interval
from .summary import average_interval

# Okabe and Ito's colours, which the colour-blind can tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
_DASHES = ("-", (0, (4, 2)))
_LEGEND: Mapping[str, Any] = {"fontsize": 8.5, "frameon": False}
_FEW = 16  # points below which each is marked and no mean is drawn
_MANY = 150  # points above which the raw curve is a thin line without markers
_WIDE = 30.0  # ratio of largest to smallest value above which an axis is logarithmic


def draw(panel: Panel, runs: Sequence[Run]) -> str | None:
    """A panel over all runs as the data URI of an SVG image; None if nothing was logged."""
    figure, axes = _make_axes(panel.title, panel.unit)
    values: list[float] = []
    drawn: set[int] = set()
    for run, colour in zip(runs, _colours(runs), strict=True):
        for i, line in enumerate(panel.lines):
            steps, ys = run.series(*line.keys)
            if steps:
                look = (_colour(i), "-") if panel.by_colour else (colour, _DASHES[i])
                _curve(axes, steps, ys, *look, panel.noisy)
                values += ys
                drawn.add(i)
    if not values:
        return None
    if panel.neutral is not None:
        axes.axhline(panel.neutral, color="#888888", linewidth=0.8, zorder=1)
    if panel.rate and min(values) >= 0.0 and max(values) <= 1.0:
        axes.set_ylim(-0.03, 1.03)
    if panel.steep and min(values) > 0.0 and max(values) / min(values) > _WIDE:
        axes.set_yscale("log")
    if panel.by_colour:
        _colour_legend(figure, {panel.lines[i].label: _colour(i) for i in sorted(drawn)})
    else:
        _legend(figure, runs, {panel.lines[i].label: _DASHES[i] for i in sorted(drawn)})
    return data_uri(figure)


def draw_accuracy(runs: Sequence[Run]) -> str | None:
    """Accuracy before and after training with 95 % intervals; None without evaluations."""
    figure, axes = _make_axes("Accuracy on unseen questions", "avg@k, %")
    span = max(run.last_step for run in runs) or 1
    curves = [
        (colour, points)
        for run, colour in zip(runs, _colours(runs), strict=True)
        if (points := _accuracy(run, span))
    ]
    if not curves:
        return None
    for i, (colour, points) in enumerate(curves):
        # Beside one another, so that no interval covers another.
        shift = 0.012 * span * (i - (len(curves) - 1) / 2)
        means = np.array([100 * interval.mean for _, interval in points])
        low = np.array([100 * interval.low for _, interval in points])
        high = np.array([100 * interval.high for _, interval in points])
        axes.errorbar(
            [step + shift for step, _ in points],
            means,
            yerr=np.stack([means - low, high - means]),
            color=colour,
            marker="o",
            markersize=5,
            linewidth=1.4,
            capsize=4,
        )
    axes.set_ylim(bottom=0)
    _legend(figure, runs, {})
    return data_uri(figure)


def _accuracy(run: Run, span: int) -> list[tuple[int, Interval]]:
    places = ((0, run.before), (run.last_step or span, run.after))
    return [
        (step, average_interval(evaluation.questions))
        for step, evaluation in places
        if evaluation is not None and evaluation.questions
    ]


def smooth(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Centred running mean over a twelfth of the curve; None for a few points."""
    if len(values) < _FEW:
        return None
    half = max(1, len(values) // 24)
    kernel = np.ones(2 * half + 1)
    # At the ends the window holds fewer points, so that the mean does not lean to zero.
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    result: np.ndarray[Any, np.dtype[np.float64]] = (
        np.convolve(np.asarray(values, dtype=np.float64), kernel, mode="same") / counts
    )
    return result


def _curve(
    axes: Axes, steps: list[int], values: list[float], colour: str, dash: Any, noisy: bool
) -> None:
    smoothed = smooth(values) if noisy else None
    if smoothed is None:
        marker = "o" if len(values) < _FEW else ""
        axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.5, marker=marker, ms=3)
        return
    if len(values) > _MANY:
        axes.plot(steps, values, color=colour, linewidth=0.5, alpha=0.35)
    else:
        axes.plot(steps, values, color=colour, linestyle="", marker="o", ms=2.6, alpha=0.35)
    axes.plot(steps, smoothed, color=colour, linestyle=dash, linewidth=1.7)


def _make_axes(title: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    return figure, axes


def _colours(runs: Sequence[Run]) -> list[str]:
    return [_colour(i) for i in range(len(runs))]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _legend(figure: Figure, runs: Sequence[Run], dashes: Mapping[str, Any]) -> None:
    """Beside the axes, not upon a curve: runs by colour below, quantities by dash above."""
    by_dash = [
        Line2D([], [], color="#333333", linestyle=dash, linewidth=1.5, label=label)
        for label, dash in dashes.items()
        if label
    ]
    if len(runs) > 1:
        _colour_legend(figure, {run.name: _colour(i) for i, run in enumerate(runs)})
    if by_dash:
        # In the line of the title, which stands on the left.
        figure.legend(handles=by_dash, loc="upper right", ncols=len(by_dash), **_LEGEND)


def _colour_legend(figure: Figure, colours: Mapping[str, str]) -> None:
    handles = [Line2D([], [], color=c, linewidth=2.5, label=name) for name, c in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, **_LEGEND)


def data_uri(figure: Figure) -> str:
    """A figure as the data URI of an SVG image."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()
