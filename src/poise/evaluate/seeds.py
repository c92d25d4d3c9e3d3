"""Runs that repeat one setting with different seeds: here the unit of evidence is the run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .isomers import MEASURES, Outcome
from .runs import NAMES
from .statistics import Difference, Interval, run_interval

T = TypeVar("T")
Names = tuple[str, ...]  # of the runs of a group
Settings = Sequence[tuple[str, Mapping[str, Any]]]  # each run's name, and `Run.config`

_SEEDS = ("seed", "data_seed", "question_seed")
_LEAST = 3  # runs that an interval over seeds is worth writing for


def over_seeds(runs: Settings, found: Sequence[T | None]) -> list[tuple[Names, list[T]]]:
    """Groups of three or more runs that differ in their seeds alone, with what each has found.

    Runs without settings, or with nothing found, are left out.
    """
    groups: dict[str, dict[str, tuple[str, T]]] = {}
    for (run, config), one in zip(runs, found, strict=True):
        if not config or not one:
            continue
        parts: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        for name, value in sorted(config.items()):
            if (last := name.rpartition(".")[2]) not in NAMES:
                parts[last in _SEEDS][name] = value
        setting, seeds = (json.dumps(part, default=str) for part in parts)
        # A run that was made twice is no second piece of evidence.
        groups.setdefault(setting, {}).setdefault(seeds, (run, one))
    return [
        (tuple(name for name, _ in group.values()), [one for _, one in group.values()])
        for group in groups.values()
        if len(group) >= _LEAST
    ]


def changes_over_seeds(
    runs: Settings, changes: Sequence[Difference | None]
) -> list[tuple[Names, Interval]]:
    """Of each group the mean of what training changed, with its t-interval over runs."""
    groups = over_seeds(runs, changes)
    return [(names, run_interval([x.interval.mean for x in found])) for names, found in groups]


def outcomes_over_seeds(
    runs: Settings, outcomes: Sequence[Mapping[str, Outcome]]
) -> list[tuple[Names, dict[str, dict[str, Interval]]]]:
    """Of each group the tests that all have: measure -> mean with its t-interval over runs."""
    return [(names, _measures(found)) for names, found in over_seeds(runs, outcomes)]


def _measures(runs: Sequence[Mapping[str, Outcome]]) -> dict[str, dict[str, Interval]]:
    result: dict[str, dict[str, Interval]] = {}
    for test in (name for name in runs[0] if all(name in run for run in runs)):
        result[test] = {}
        for measure in MEASURES:
            found = [getattr(run[test], measure.name) for run in runs]
            if None not in found:
                result[test][measure.name] = run_interval([interval.mean for interval in found])
    return result
