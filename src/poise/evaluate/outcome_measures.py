"""The measures of tests of logical isomers as people read them, and over several seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .by_test import MEAN, Outcome
from .runs import repetitions
from .statistics import Interval, run_interval
from .summary import distance, percent

NONE = "–"


@dataclass(frozen=True)
class Measure:
    """A measure of an `Outcome` as people read it.

    Args:
        name: The field of `Outcome`.
        title: What tables call it.
        show: Writes its interval down.
    """

    name: str
    title: str
    show: Callable[[Interval], str] = percent

    def text(self, interval: Interval | None) -> str:
        """The interval in words."""
        return NONE if interval is None else self.show(interval)

    def cell(self, outcome: Outcome) -> str:
        """The measure of an outcome, with the domain where it is that of one."""
        text = self.text(getattr(outcome, self.name))
        return f"{text} ({outcome.worst_domain})" if self.name == "worst" else text


MEASURES = (
    Measure("accuracy", "Accuracy by test, avg@k, %"),
    Measure("worst", "Worst domain, avg@k, %"),
    Measure("disagreement", "Answer disagreement, %"),
    Measure("consistency", "Logical Consistency Score", distance),
)


def title_of(test: str) -> str:
    """A test's name as people read it."""
    return "mean out of distribution" if test == MEAN else test.replace("_", " ")


@dataclass(frozen=True)
class OverSeeds:
    """Runs that repeat one setting with different seeds, taken together.

    Args:
        runs: Their names.
        tests: Test -> measure (``accuracy``, ``worst``, ``disagreement``, ``consistency``) -> mean
            with its 95 % t-interval over runs.
    """

    runs: tuple[str, ...]
    tests: dict[str, dict[str, Interval]]


def over_seeds(
    names: Sequence[str],
    configs: Sequence[Mapping[str, object]],
    found: Sequence[Mapping[str, Outcome]],
) -> list[OverSeeds]:
    """Every test over the runs that repeat one setting with three or more seeds.

    Args:
        names: Of the runs.
        configs: Their settings, as `runs.Run.config`; runs without any are left out.
        found: `outcomes` of each.
    """
    known = [
        i for i, (config, tests) in enumerate(zip(configs, found, strict=True)) if config and tests
    ]
    result = []
    for group in repetitions([configs[i] for i in known]):
        members = [known[i] for i in group]
        tests = [name for name in found[members[0]] if all(name in found[i] for i in members)]
        result.append(
            OverSeeds(
                tuple(names[i] for i in members),
                {test: _measures([found[i][test] for i in members]) for test in tests},
            )
        )
    return result


def _measures(runs: Sequence[Outcome]) -> dict[str, Interval]:
    measures = {}
    for measure in MEASURES:
        found = [getattr(run, measure.name) for run in runs]
        if None not in found:
            measures[measure.name] = run_interval([interval.mean for interval in found])
    return measures
