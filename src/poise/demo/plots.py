"""Pictures of the demo's page: means as dots with intervals or seeds around them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..evaluate.plots import COLOURS, data_uri
from ..evaluate.statistics import Interval

_GREY = "#555555"


def draw_accuracy(before: Interval, after: Mapping[str, Interval], chance: float) -> str:
    """Accuracy before and after with 95 % intervals, one row each, as the data URI of an SVG."""
    rows = {"before training": before, **after}
    figure, axes = _axes(len(rows), "right answers to unseen questions, %")
    _mark_chance(axes, chance)
    colours = [_GREY, *COLOURS[1::-1]]
    for place, (interval, colour) in enumerate(zip(rows.values(), colours, strict=False)):
        low, mean, high = (100 * x for x in (interval.low, interval.mean, interval.high))
        axes.plot([low, high], [place, place], color=colour, linewidth=7, alpha=0.25)
        axes.plot([mean], [place], "o", color=colour, markersize=10)
        axes.annotate(f"{mean:.0f} %", (mean, place), (0, 9), textcoords="offset points",
                      ha="center", fontsize=10, fontweight="bold", color=colour)  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.7)
    return data_uri(figure)


def draw_tests(
    tests: Sequence[str],
    methods: Sequence[str],
    accuracy: Mapping[str, Mapping[str, Sequence[float]]],
    chance: float,
) -> str:
    """Accuracy of each method in each test: a dot a seed, and their mean, as a data URI."""
    figure, axes = _axes(len(tests) * 1.3, "right answers, %")
    _mark_chance(axes, chance)
    height = 0.6 / len(methods)
    for m, method in enumerate(methods):
        colour = (COLOURS[1], COLOURS[0], _GREY)[m]
        for t, test in enumerate(tests):
            values = [100 * value for value in accuracy[test][method]]
            mean, place = statistics.fmean(values), t + height * (m - (len(methods) - 1) / 2)
            axes.barh(place, mean, height * 0.86, color=colour, alpha=0.85,
                      label=method if t == 0 else None)  # fmt: skip
            axes.plot(values, [place] * len(values), "o", color="white", markersize=5,
                      markeredgecolor="#222222", markeredgewidth=0.9)  # fmt: skip
            axes.annotate(f"{mean:.0f}", (max(values), place), (8, 0), textcoords="offset points",
                          va="center", fontsize=9.5, fontweight="bold", color=colour)  # fmt: skip
    axes.set_yticks(range(len(tests)), list(tests))
    axes.set_ylim(len(tests) - 0.5, -0.5)
    figure.legend(loc="outside lower center", ncols=len(methods), fontsize=9.5, frameon=False)
    return data_uri(figure)


def _mark_chance(axes: Axes, chance: float) -> None:
    axes.axvline(100 * chance, color="#999999", linewidth=1, linestyle=(0, (4, 3)))
    axes.text(100 * chance, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center",
              fontsize=8.5, color="#777777")  # fmt: skip


def _axes(rows: float, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.4, 1.15 + 0.55 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlim(0, 105)
    axes.set_xlabel(label, fontsize=9.5)
    axes.tick_params(axis="y", length=0, labelsize=10.5)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes
