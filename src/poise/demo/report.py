"""The demo's page: what its two acts have shown, and what they have not."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import poise

from ..evaluate.measures import average_interval, compare, percent, points, summarise
from ..evaluate.plots import COLOURS, PANELS, data_uri, draw
from ..evaluate.report import Sample, choose_samples, environment
from ..evaluate.runs import Run, read_run
from ..evaluate.statistics import Interval, run_interval

_GREY = "#555555"
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
    accuracy = {
        "SDPO": average_interval(sdpo.after.questions),
        "PGPO": average_interval(after),
    }
    start, risen = average_interval(before), compare(before, after)
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
        "picture": _draw_accuracy(start, accuracy),
        "samples": [_answered(sample) for sample in choose_samples(pgpo, 6)],
        "folders": [str(pgpo.path), str(sdpo.path)],
        "dtype": pgpo.after.header.sampling["dtype"],
    }


def _answered(sample: Sample) -> dict[str, Any]:
    """A question, and the answers before and after, each with whether it is right."""
    sides = [side for side in (sample.before, sample.after) if side is not None]
    return {
        "question": sample.question.prompt.removesuffix("\nAnswer:"),
        "answers": [(side.completions[0].strip(), side.rewards[0] == 1.0) for side in sides],
    }


def _isomers(files: Sequence[Path]) -> dict[str, Any]:
    """Act two: accuracy (0 to 1) by test, method and seed."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    seeds, by_seed = [one["seed"] for one in found], [one["accuracy"] for one in found]
    methods = list(by_seed[0])
    tests = list(by_seed[0][methods[0]])
    accuracy = {t: {m: [one[m][t] for one in by_seed] for m in methods} for t in tests}
    test = tests[-1]
    plain, iga = (accuracy[test][method] for method in methods)
    gains = [b - a for a, b in zip(plain, iga, strict=True)]
    if len(gains) < _SEEDS:
        pairs = zip(gains, seeds, strict=True)
        gain = ", ".join(f"{100 * one:+.1f} points on seed {seed}" for one, seed in pairs)
    else:
        gain = f"{points(run_interval(gains))} points more, by a t-interval over {len(gains)} seeds"
    means = [100 * statistics.fmean(one) for one in (plain, iga)]
    return {
        "shown": f"where {test}, plain LoRA is right in {means[0]:.0f} % and IGA in "
        f"{means[1]:.0f} %; {gain}.",
        "not_shown": "that a real language model gains as much: this one was made for the purpose, "
        "and its shortcut is perfect in training, which is where comparing domains helps most.",
        "picture": _draw_tests(tests, methods, accuracy),
        "seeds": seeds,
    }


def _draw_accuracy(before: Interval, after: Mapping[str, Interval]) -> str:
    """Accuracy before and after with 95 % intervals, one row each, as the data URI of an SVG."""
    rows = {"before training": before, **after}
    figure, axes = _axes(len(rows), "right answers to unseen questions, %")
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


def _draw_tests(
    tests: Sequence[str],
    methods: Sequence[str],
    accuracy: Mapping[str, Mapping[str, Sequence[float]]],
) -> str:
    """Accuracy of each method in each test: a dot a seed, and their mean, as a data URI."""
    figure, axes = _axes(len(tests) * 1.3, "right answers, %")
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


def _axes(rows: float, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.4, 1.15 + 0.55 * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(0, 105)
    axes.set_xlabel(label, fontsize=9.5)
    axes.tick_params(axis="y", length=0, labelsize=10.5)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.axvline(100 * _CHANCE, color="#999999", linewidth=1, linestyle=(0, (4, 3)))
    axes.text(100 * _CHANCE, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center",
              fontsize=8.5, color="#777777")  # fmt: skip
    return figure, axes
