"""The demo's page: what its two acts have shown, and what they have not."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import poise

from ..evaluate.measures import average_interval, compare, percent, points, summarise
from ..evaluate.plots import PANELS, draw
from ..evaluate.report import Sample, choose_samples, environment
from ..evaluate.runs import Run, read_run
from ..evaluate.statistics import run_interval
from .plots import draw_accuracy, draw_tests

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
        "picture": draw_accuracy(start, accuracy, _CHANCE),
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
        "picture": draw_tests(tests, methods, accuracy, _CHANCE),
        "seeds": seeds,
    }
