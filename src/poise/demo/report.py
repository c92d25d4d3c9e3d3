"""The demo's page: what its two acts have shown, and what they have not."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import poise

from ..evaluate.measures import average_interval, compare, percent, points, summarise
from ..evaluate.plots import PANELS, draw
from ..evaluate.report import Sample, choose_samples, environment
from ..evaluate.runs import Run, read_run
from ..evaluate.statistics import Difference, Interval, run_interval
from .plots import draw_accuracy, draw_tests

_CURVES = ("Reward", "Step multiplier")
_CHANCE = 0.25  # of four options and of four symbols
_SEEDS = 3  # the least that an interval over seeds is worth writing for


@dataclass(frozen=True)
class Answered:
    """A question, and what was answered to it before and after, each with whether it is right."""

    question: str
    answers: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Recall:
    """Act one: accuracy before, by SDPO and by PGPO, on the same unseen questions."""

    folders: Sequence[str]
    dtype: str
    before: Interval
    after: Mapping[str, Interval]
    risen: Mapping[str, Difference]
    between: Difference
    named: tuple[float, float]
    samples: Sequence[Answered]

    @property
    def shown(self) -> str:
        """What was shown."""
        risen = self.risen["PGPO"].interval
        verb = "raised" if risen.low > 0 else "did not clearly raise"
        return (
            f"PGPO {verb} accuracy on {self.risen['PGPO'].questions} unseen questions from "
            f"{percent(self.before)} % to {percent(self.after['PGPO'])} %, a difference of "
            f"{points(risen)} points."
        )

    @property
    def not_shown(self) -> str:
        """What was not."""
        gap = self.between.interval
        told = "is above" if gap.low > 0 else "is below" if gap.high < 0 else "is not told apart"
        return (
            f"that PGPO is better than a tuned SDPO: after the same steps it {told} "
            f"({points(gap)} points) at a rate that is too high for SDPO, which at a lower one "
            "does as well. One seed settles nothing. Nor that the model reasons: "
            "unseen questions ask for seen facts among other options. A part of the rise is the "
            f"form: {100 * self.named[0]:.0f} % of the answers named an option before training, "
            f"{100 * self.named[1]:.0f} % after it."
        )


@dataclass(frozen=True)
class Isomers:
    """Act two: accuracy (0 to 1) by test, method and seed."""

    tests: Sequence[str]
    methods: Sequence[str]
    seeds: Sequence[int]
    accuracy: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def shown(self) -> str:
        """What was shown."""
        test = self.tests[-1]
        plain, iga = (100 * statistics.fmean(self.accuracy[test][name]) for name in self.methods)
        return (
            f"where {test}, plain LoRA is right in {plain:.0f} % and IGA in {iga:.0f} %; "
            f"{self._gain(test)}."
        )

    def _gain(self, test: str) -> str:
        plain, iga = (self.accuracy[test][name] for name in self.methods)
        gains = [b - a for a, b in zip(plain, iga, strict=True)]
        if len(gains) < _SEEDS:
            by_seed = zip(gains, self.seeds, strict=True)
            return ", ".join(f"{100 * gain:+.1f} points on seed {seed}" for gain, seed in by_seed)
        return f"{points(run_interval(gains))} points more, by a t-interval over {len(gains)} seeds"

    @property
    def not_shown(self) -> str:
        """What was not."""
        return (
            "that a real language model gains as much: this one was made for the purpose, and its "
            "shortcut is perfect in training, which is where comparing domains helps most."
        )


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
    page = (
        environment("poise.demo")
        .get_template("demo.html.j2")
        .render(
            recall=recall,
            isomers=toys,
            accuracy=draw_accuracy(recall.before, recall.after, _CHANCE),
            curves=[picture for panel in panels if (picture := draw(panel, runs))],
            tests=draw_tests(toys.tests, toys.methods, toys.accuracy, _CHANCE),
            version=poise.__version__,
        )
    )
    path.write_text(page, encoding="utf-8")
    return [f"{act}: {sentence}" for act, sentence in (("1", recall.shown), ("2", toys.shown))]


def _recall(pgpo: Run, sdpo: Run) -> Recall:
    assert pgpo.before is not None and pgpo.after is not None and sdpo.after is not None
    before = pgpo.before.questions
    answers = {"SDPO": sdpo.after.questions, "PGPO": pgpo.after.questions}
    return Recall(
        folders=[str(pgpo.path), str(sdpo.path)],
        dtype=pgpo.after.header.sampling["dtype"],
        before=average_interval(before),
        after={name: average_interval(records) for name, records in answers.items()},
        risen={name: compare(before, records) for name, records in answers.items()},
        between=compare(answers["SDPO"], answers["PGPO"]),
        named=(summarise(before).format.mean, summarise(answers["PGPO"]).format.mean),
        samples=[_answered(sample) for sample in choose_samples(pgpo, 6)],
    )


def _answered(sample: Sample) -> Answered:
    asked = sample.question.prompt.removesuffix("\nAnswer:")
    sides = [side for side in (sample.before, sample.after) if side is not None]
    return Answered(
        asked, tuple((side.completions[0].strip(), side.rewards[0] == 1.0) for side in sides)
    )


def _isomers(files: Sequence[Path]) -> Isomers:
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    methods = list(found[0]["accuracy"])
    tests = list(found[0]["accuracy"][methods[0]])
    return Isomers(
        tests=tests,
        methods=methods,
        seeds=[one["seed"] for one in found],
        accuracy={
            test: {name: [one["accuracy"][name][test] for one in found] for name in methods}
            for test in tests
        },
    )
