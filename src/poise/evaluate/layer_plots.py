"""Where in the network the domains agree: statistics of the mask as maps of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .plots import data_uri
from .runs import Run

# Statistic -> title and range of colours; None is taken from the values.
STATISTICS: Mapping[str, tuple[str, float | None, float | None]] = {
    "mask_mean": ("Mean mask", 0.0, 1.0),
    "suppressed_energy": ("Suppressed energy, share", 0.0, 1.0),
    "agreement": ("Agreement of domains, mean cosine", None, 1.0),
    "rank_energy": ("Energy kept by the projection, share", 0.0, 1.0),
}
_DEPTH = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def draw_layers(run: Run) -> str | None:
    """Maps of a run's layers, means over the logged steps, as a data URI; None without any.

    Columns are blocks, rows the kinds of layers in them.
    """
    maps = {name: map_of(run, name) for name in STATISTICS}
    drawn = {name: found for name, found in maps.items() if found is not None}
    if not drawn:
        return None
    kinds = max(len(found[0]) for found in drawn.values())
    rows = (len(drawn) + 1) // 2
    figure = Figure(figsize=(11.6, rows * (1.3 + 0.24 * kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (name, (names, values)) in enumerate(drawn.items(), start=1):
        _draw_map(figure, figure.add_subplot(rows, 2, place), name, names, values)
    return data_uri(figure)


def map_of(run: Run, statistic: str) -> tuple[list[str], NDArray[np.float64]] | None:
    """Kinds of layers, and means over steps, shape (kinds, blocks), NaN where nothing is."""
    found: dict[tuple[str, int], list[float]] = {}
    for step in run.layers:
        for name, values in step.layers.items():
            if statistic in values:
                found.setdefault(place_of(name), []).append(values[statistic])
    if not found:
        return None
    kinds = list(dict.fromkeys(kind for kind, _ in found))
    table = np.full((len(kinds), 1 + max(depth for _, depth in found)), np.nan)
    for (kind, depth), seen in found.items():
        table[kinds.index(kind), depth] = np.mean(seen)
    return kinds, table


def place_of(name: str) -> tuple[str, int]:
    """Kind and block of a layer: the first number in its name is the block.

    >>> place_of("model.layers.3.self_attn.q_proj")
    ('q_proj', 3)
    """
    depth = _DEPTH.search(name)
    return name.rpartition(".")[2], int(depth[1]) if depth else 0


def _draw_map(
    figure: Figure, axes: Axes, name: str, kinds: list[str], values: NDArray[np.float64]
) -> None:
    title, low, high = STATISTICS[name]
    image = axes.pcolormesh(np.ma.masked_invalid(values), vmin=low, vmax=high, cmap="viridis")
    figure.colorbar(image, ax=axes, pad=0.02)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("block", fontsize=9)
    axes.set_yticks(np.arange(len(kinds)) + 0.5, kinds, fontsize=8.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.invert_yaxis()
