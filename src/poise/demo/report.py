"""The demo's page: what its two acts have shown, and what they have not."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import poise

from ..evaluate.measures import average_interval, compare, percent, points, summarise
from ..evaluate.plots import COLOURS, PANELS, data_uri, draw, dress
from ..evaluate.report import choose_samples, environment
from ..evaluate.runs import Run, read_run
from ..evaluate.statistics import run_interval

_COLOURS = {"PGPO": COLOURS[0], "SDPO": COLOURS[1], "IGA": COLOURS[0], "plain LoRA": COLOURS[1]}
_GREY = "#555555"  # of others
_CURVES = ("Reward", "Step multiplier")
_CHANCE = 0.25  # of four options and of four symbols
_SEEDS = 3  # the least that an interval over seeds is worth writing for


def write_demo_report(path: Path, pgpo: Path, sdpo: Path, isomers: Sequence[Path]) -> list[str]:
    """Write the page; returns what the screen says, line by line.

    Args:
        path: Of the page.
        pgpo: Run folder.
        sdpo: Run folder.
        isomers: One file a seed of act two.
    """
    runs = [read_run(pgpo), read_run(sdpo)]
    recall, toys = _recall(*runs), _isomers(isomers)
    panels = [panel for title in _CURVES for panel in PANELS if panel.title == title]
    curves = [picture for panel in panels if (picture := draw(panel, runs))]
    template = environment("poise.demo").get_template("demo.html.j2")
    page = template.render(recall=recall, isomers=toys, curves=curves, version=poise.__version__)
    path.write_text(page, encoding="utf-8")
    return [f"1: {recall['shown']}", f"2: {toys['shown']}"]


def _recall(pgpo: Run, sdpo: Run) -> dict[str, Any]:
    """Act one: accuracy before, by SDPO and by PGPO, on the same unseen questions."""
    assert pgpo.before is not None and pgpo.after is not None and sdpo.after is not None
    before, after = pgpo.before.questions, pgpo.after.questions
    sides = {"before training": before, "SDPO": sdpo.after.questions, "PGPO": after}
    accuracy = {name: average_interval(records) for name, records in sides.items()}
    start, risen = accuracy["before training"], compare(before, after)
    verb = "raised" if risen.interval.low > 0 else "did not clearly raise"
    gap = compare(sdpo.after.questions, after).interval
    side = "is above" if gap.low > 0 else "is below" if gap.high < 0 else "does not differ clearly"
    named = [100 * summarise(records).format.mean for records in (before, after)]
    return {
        "shown": f"PGPO {verb} accuracy on {risen.questions} unseen questions from "
        f"{percent(start)} % to {percent(accuracy['PGPO'])} %, a difference of "
        f"{points(risen.interval)} points.",
        "not_shown": f"that PGPO is better than a tuned SDPO: after the same steps it {side} "
        f"({points(gap)} points) at a rate that is too high for SDPO, which at a lower one does as "
        "well. One seed settles nothing. Nor that the model reasons: unseen questions ask for seen "
        "facts among other options. A part of the rise is the form: "
        f"{named[0]:.0f} % of the answers named an option before training, {named[1]:.0f} % after "
        "it.",
        "picture": _draw(
            "right answers to unseen questions, %",
            {name: {name: (one.mean, (one.low, one.high))} for name, one in accuracy.items()},
            "|-",
        ),
        "samples": choose_samples(pgpo, 6),
        "folders": [str(pgpo.path), str(sdpo.path)],
        "dtype": pgpo.after.header.sampling["dtype"],
    }


def _isomers(files: Sequence[Path]) -> dict[str, Any]:
    """Act two: accuracy (0 to 1) by test, method and seed."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    seeds, by_seed = [one["seed"] for one in found], [one["accuracy"] for one in found]
    accuracy = {
        test: {method: [one[method][test] for one in by_seed] for method in by_seed[0]}
        for test in by_seed[0]["IGA"]
    }
    test = list(accuracy)[-1]
    plain, iga = accuracy[test].values()
    gains = [b - a for a, b in zip(plain, iga, strict=True)]
    if len(gains) < _SEEDS:
        pairs = zip(gains, seeds, strict=True)
        gain = ", ".join(f"{100 * one:+.1f} points on seed {seed}" for one, seed in pairs)
    else:
        gain = f"{points(run_interval(gains))} points more, by a t-interval over {len(gains)} seeds"
    bars = {
        test: {method: (statistics.fmean(one), one) for method, one in row.items()}
        for test, row in accuracy.items()
    }
    return {
        "shown": f"where {test}, plain LoRA is right in {100 * statistics.fmean(plain):.0f} % and "
        f"IGA in {100 * statistics.fmean(iga):.0f} %; {gain}.",
        "not_shown": "that a real language model gains as much: this one was made for the purpose, "
        "and its shortcut is perfect in training, which is where comparing domains helps most.",
        "picture": _draw("right answers, %", bars, "o"),
        "seeds": seeds,
    }


def _draw(
    label: str, rows: Mapping[str, Mapping[str, tuple[float, Sequence[float]]]], marks: str
) -> str:
    """Bars of percentages, as the data URI of an SVG image.

    Args:
        label: Of the axis.
        rows: Row -> name of a bar -> its length and what is marked on it, all in [0, 1].
        marks: How matplotlib is to mark it.
    """
    most = max(map(len, rows.values()))
    figure = Figure(figsize=(7.4, 1.15 + (0.4 + 0.15 * most) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    dress(axes)
    for row, bars in enumerate(rows.values()):
        height = 0.6 / most
        for number, (name, (length, marked)) in enumerate(bars.items()):
            colour, place = _COLOURS.get(name, _GREY), row + height * (number - (most - 1) / 2)
            axes.barh(
                place, 100 * length, 0.86 * height, color=colour, label=name if row == 0 else None
            )
            values = [100 * value for value in marked]
            axes.plot(
                values, [place] * len(values), marks, color="#222222", markerfacecolor="white"
            )
            axes.annotate(f"{100 * length:.0f}", (max(values), place), (8, 0),
                          textcoords="offset points", va="center", color=colour)  # fmt: skip
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 105)
    axes.set_xlabel(label)
    axes.axvline(100 * _CHANCE, color="#999999", linewidth=1, linestyle=(0, (4, 3)))
    axes.text(100 * _CHANCE, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center")
    if most > 1:
        figure.legend(loc="outside lower center", ncols=most, frameon=False)
    return data_uri(figure)
