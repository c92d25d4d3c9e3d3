"""Curves and maps of training runs as SVG images, drawn without matplotlib's global state."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .measures import average_interval
from .runs import Run

# Okabe and Ito's colours, which the colour-blind can tell apart too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
_DASHES = ("-", (0, (4, 2)))
_LEGEND: Mapping[str, Any] = {"fontsize": 8.5, "frameon": False}
_TITLE: Mapping[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold"}
_FEW = 16  # points below which each is marked and no mean is drawn
_MANY = 150  # points above which the raw curve is a thin line without markers
_WIDE = 30.0  # ratio of largest to smallest value above which an axis is logarithmic


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str  # label of the vertical axis
    lines: Mapping[str, tuple[str, ...]]  # name in the legend -> log keys that may hold it
    method: str = ""  # that logs it, as the first part of its log keys; empty for any
    neutral: float | None = None  # value that means "no effect", drawn as a thin line
    rate: bool = False  # whether values lie in [0, 1]
    steep: bool = False  # whether the axis may become logarithmic
    noisy: bool = True  # whether a running mean helps; a schedule is drawn as it is
    by_colour: bool = False  # whether colours tell quantities apart, as for the many of one run


def _panel(title: str, unit: str, *keys: str, method: str = "", **look: Any) -> Panel:
    """A panel of one quantity."""
    return Panel(title, unit, {"": keys}, method, **look)


_CLIPPING = {"before clipping": ("grad_norm",), "after clipping": ("pgpo/grad_norm_clipped",)}
_RATES = {
    "scheduler's": ("learning_rate",),
    "times the multiplier": ("pgpo/effective_learning_rate",),
}
_ENTROPIES = {"student": ("pgpo/student_entropy",), "teacher": ("pgpo/teacher_entropy",)}
_DISTILLED = ("pgpo/distilled_fraction", "self_distillation/reprompt_sample_fraction")
_PGPO: Mapping[str, Any] = {"method": "pgpo"}
_IGA: Mapping[str, Any] = {"method": "iga"}
# Every panel whose log keys are known beforehand.
PANELS = (
    _panel("Reward", "mean reward", "self_distillation/reward_mean", "reward", **_PGPO, rate=True),
    _panel("Information signal", "nats per token", "pgpo/information_signal", **_PGPO, neutral=0.0),
    _panel("Step multiplier", "times the plain step", "pgpo/multiplier", **_PGPO, neutral=1.0),
    Panel("Entropy", "nats per token", _ENTROPIES, "pgpo"),
    _panel("Completion length", "tokens", "completions/mean_length", **_PGPO),
    _panel("Samples distilled", "share of samples", *_DISTILLED, **_PGPO, rate=True),
    _panel("Mean mask", "mean over parameters", "iga/mask_mean", **_IGA, neutral=1.0, rate=True),
    _panel("Suppressed energy", "share", "iga/suppressed_energy", **_IGA, rate=True),
    _panel("Agreement of domains", "mean cosine", "iga/agreement", **_IGA, neutral=0.0),
    _panel("Energy kept by the projection", "share", "iga/rank_energy", **_IGA, rate=True),
    Panel("Gradient norm", "L2 norm", _CLIPPING, steep=True),
    Panel("Learning rate", "per step", _RATES, noisy=False),
    _panel("Loss", "loss", "loss"),
)
# A trainer of the same kind without the method logs a part of its quantities.
_KIN = {"pgpo": {"pgpo", "self_distillation"}}
DOMAIN_LOSS = "iga/loss/"


def panels_of(runs: Sequence[Run]) -> list[Panel]:
    """The panels of the methods that these runs used, and those of any training."""
    methods = set().union(*(run.methods for run in runs))
    return [p for p in PANELS if not p.method or _KIN.get(p.method, {p.method}) & methods]


def domain_losses(runs: Sequence[Run]) -> list[tuple[Run, Panel]]:
    """For each run that logged losses by domain a panel; domains look alike in all of them."""
    logged = [{key for line in run.metrics for key in line} for run in runs]
    keys = sorted(key for key in set().union(*logged) if key.startswith(DOMAIN_LOSS))
    lines = {key.removeprefix(DOMAIN_LOSS): (key,) for key in keys}
    several = len(runs) > 1
    return [
        (run, Panel(f"Loss by domain{f': {run.name}' * several}", "loss", lines, by_colour=True))
        for run, own in zip(runs, logged, strict=True)
        if own.intersection(keys)
    ]


def draw(panel: Panel, runs: Sequence[Run]) -> str | None:
    """A panel over all runs as the data URI of an SVG image; None if nothing was logged.

    Colours tell runs apart and dashes quantities, unless the panel has quantities `by_colour`.
    """
    figure, axes = _make_axes(panel.title, panel.unit)
    values: list[float] = []
    colours: dict[str, str] = {}
    dashes: dict[str, Any] = {}
    for place, run in enumerate(runs):
        for i, (label, keys) in enumerate(panel.lines.items()):
            steps, ys = run.series(*keys)
            if steps:
                colour = _colour(i if panel.by_colour else place)
                dash = "-" if panel.by_colour else _DASHES[i]
                _curve(axes, steps, ys, panel.noisy, color=colour, linestyle=dash)
                colours[label if panel.by_colour else run.name] = colour
                dashes[label] = dash
                values += ys
    if not values:
        return None
    if panel.neutral is not None:
        axes.axhline(panel.neutral, color="#888888", linewidth=0.8, zorder=1)
    if panel.rate and min(values) >= 0.0 and max(values) <= 1.0:
        axes.set_ylim(-0.03, 1.03)
    if panel.steep and min(values) > 0.0 and max(values) / min(values) > _WIDE:
        axes.set_yscale("log")
    if panel.by_colour or len(runs) > 1:
        _name_colours(figure, colours)
    if len(panel.lines) > 1 and not panel.by_colour:
        lines = [Line2D([], [], color="#333333", linestyle=dash) for dash in dashes.values()]
        # In the line of the title, which stands on the left.
        figure.legend(lines, list(dashes), loc="upper right", ncols=len(lines), **_LEGEND)
    return data_uri(figure)


def draw_accuracy(runs: Sequence[Run]) -> str | None:
    """Accuracy before and after training with 95 % intervals; None without evaluations."""
    figure, axes = _make_axes("Accuracy on unseen questions", "avg@k, %")
    span = max(run.last_step for run in runs) or 1
    evaluated = [(place, run) for place, run in enumerate(runs) if any(run.answers)]
    for i, (place, run) in enumerate(evaluated):
        # Beside one another, so that no interval covers another.
        shift = 0.012 * span * (i - (len(evaluated) - 1) / 2)
        sides = zip((0, run.last_step or span), run.answers, strict=True)
        steps, points = zip(
            *((x, average_interval(found)) for x, found in sides if found), strict=True
        )
        low, mean, high = 100 * np.array([[p.low, p.mean, p.high] for p in points]).T
        axes.errorbar(
            [step + shift for step in steps],
            mean,
            yerr=np.stack([mean - low, high - mean]),
            color=_colour(place),
            marker="o",
            markersize=5,
            linewidth=1.4,
            capsize=4,
        )
    if not evaluated:
        return None
    axes.set_ylim(bottom=0)
    if len(runs) > 1:
        _name_colours(figure, {run.name: _colour(place) for place, run in evaluated})
    return data_uri(figure)


def smooth(values: Sequence[float]) -> NDArray[np.float64] | None:
    """Centred running mean over a twelfth of the curve; None for a few points."""
    if len(values) < _FEW:
        return None
    kernel = np.ones(2 * max(1, len(values) // 24) + 1)
    # At the ends the window holds fewer points, so that the mean does not lean to zero.
    counts = np.convolve(np.ones(len(values)), kernel, mode="same")
    result: NDArray[np.float64] = np.convolve(np.asarray(values), kernel, mode="same") / counts
    return result


def _curve(
    axes: Axes, steps: list[int], values: list[float], noisy: bool, color: str, linestyle: Any
) -> None:
    look = {"color": color, "linestyle": linestyle}
    smoothed = smooth(values) if noisy else None
    if smoothed is None:
        marker = "o" if len(values) < _FEW else ""
        axes.plot(steps, values, linewidth=1.5, marker=marker, ms=3, **look)
        return
    if len(values) > _MANY:
        axes.plot(steps, values, color=color, linewidth=0.5, alpha=0.35)
    else:
        axes.plot(steps, values, color=color, linestyle="", marker="o", ms=2.6, alpha=0.35)
    axes.plot(steps, smoothed, linewidth=1.7, **look)


def _make_axes(title: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, 3.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, **_TITLE)
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel(unit, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.ticklabel_format(axis="y", scilimits=(-3, 4))
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """Small labels, a pale grid below what is drawn, no frame."""
    axes.tick_params(labelsize=8.5)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _name_colours(figure: Figure, colours: Mapping[str, str]) -> None:
    """Below the axes, not upon a curve."""
    lines = [Line2D([], [], color=colour, linewidth=2.5) for colour in colours.values()]
    figure.legend(lines, list(colours), loc="outside lower center", ncols=3, **_LEGEND)


def data_uri(figure: Figure) -> str:
    """A figure as the data URI of an SVG image."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode()


# Statistic of the mask by layer -> title and range of colours; None is taken from the values.
LAYER_STATISTICS: Mapping[str, tuple[str, float | None, float | None]] = {
    "mask_mean": ("Mean mask", 0.0, 1.0),
    "suppressed_energy": ("Suppressed energy, share", 0.0, 1.0),
    "agreement": ("Agreement of domains, mean cosine", None, 1.0),
    "rank_energy": ("Energy kept by the projection, share", 0.0, 1.0),
}


def draw_layers(run: Run) -> str | None:
    """Maps of where in the network the domains agree, as a data URI; None without any.

    Means over the logged steps; columns are blocks, rows the kinds of layers in them.
    """
    maps = {name: found for name in LAYER_STATISTICS if (found := map_of(run, name)) is not None}
    if not maps:
        return None
    most = max(len(kinds) for kinds, _ in maps.values())
    rows = (len(maps) + 1) // 2
    figure = Figure(figsize=(11.6, rows * (1.3 + 0.24 * most)), layout="constrained")
    for place, (name, (kinds, values)) in enumerate(maps.items(), start=1):
        axes = figure.add_subplot(rows, 2, place)
        title, low, high = LAYER_STATISTICS[name]
        image = axes.pcolormesh(np.ma.masked_invalid(values), vmin=low, vmax=high, cmap="viridis")
        figure.colorbar(image, ax=axes, pad=0.02)
        axes.set_title(title, **_TITLE)
        axes.set_xlabel("block", fontsize=9)
        axes.set_yticks(np.arange(len(kinds)) + 0.5, kinds, fontsize=8.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.invert_yaxis()
    return data_uri(figure)


def map_of(run: Run, statistic: str) -> tuple[list[str], NDArray[np.float64]] | None:
    """Kinds of layers, and means over steps, shape (kinds, blocks), NaN where nothing is."""
    found: dict[tuple[str, int], list[float]] = {}
    for layers in run.layers:
        for name, values in layers.items():
            if statistic in values:
                # The first number in a layer's name is its block.
                block = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
                place = name.rpartition(".")[2], int(block[1]) if block else 0
                found.setdefault(place, []).append(values[statistic])
    if not found:
        return None
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    table = np.full((len(kinds), 1 + max(depth for _, depth in found)), np.nan)
    for (kind, depth), seen in found.items():
        table[kinds.index(kind), depth] = np.mean(seen)
    return kinds, table
