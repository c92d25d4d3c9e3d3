"""An experiment: a grid of runs, and what its table and figure show."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

METHOD, SEED = "method", "seed"  # settings of a run that the harness sets


@dataclass(frozen=True)
class Run:
    """One run of a study."""

    study: str
    place: Mapping[str, Any]  # method, axes' values and seed: where in the grid it stands
    config: Mapping[str, Any]  # all settings, those of `place` among them

    @property
    def key(self) -> str:
        """Identifies study and settings: 16 hex digits of a SHA-256 of their JSON."""
        text = json.dumps([self.study, self.config], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.place.items())


@dataclass(frozen=True)
class Column:
    """One figure of the table.

    Args:
        better: Which direction is, or None where neither is.
        percent: Whether a rate in [0, 1] is shown in percent.
        compare: Whether it is compared with the baseline (or a method's partner), and so counts
            among the comparisons; or the name of a method with which all are compared instead.
        of: The figure, where the column's name is another.
        over, by: A figure of each method and seed that comes from several runs, reduced over the
            axis `over`: its mean or max; its trend, the change a unit of `over` (least
            squares); the slope of its logarithm against that of `over` (likewise); or its range,
            in decades of `over`: the longest stretch of neighbouring values at which it is within
            `margin` of what the baseline has, in the same seed, where its mean over seeds is best;
            with half a step to the next values.
        margin: Of the range.
    """

    better: Literal["higher", "lower"] | None = None
    percent: bool = False
    compare: bool | str = True
    of: str | None = None
    over: str | None = None
    by: Literal["mean", "max", "trend", "slope", "range"] | None = None
    margin: float = 0.0


@dataclass(frozen=True)
class Rule:
    """What has to hold of a task before methods are compared on it: bounds of a figure's mean."""

    method: str  # whose runs are looked at
    figure: str
    at_least: float | None = None
    at_most: float | None = None  # one or both


@dataclass(frozen=True)
class Plot:
    """The figure: one line a method, one panel for each `y` and each value of the other axes."""

    y: tuple[str, ...]  # names of figures, all of them in the table
    x: str | None = None  # an axis; None puts the methods side by side
    log: tuple[str, ...] = ()  # the axes, of "x" and "y", that are logarithmic
    methods: tuple[str, ...] = ()  # those that are drawn; by default all


@dataclass(frozen=True)
class Experiment:
    """What varies, and what is shown; see `specification.load`."""

    folder: Path  # where it lives, with its results
    study: str  # name of a module in `studies`
    methods: Mapping[str, Mapping[str, Any]]  # name -> its settings
    seeds: tuple[int, ...]  # in the order in which they run
    table: Mapping[str, Column]  # figure -> how it is shown
    fixed: Mapping[str, Any] = field(default_factory=dict)  # of all runs; a method's go before them
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)  # axis -> its values
    baseline: str | None = None  # the method with which the others are compared
    partners: Mapping[str, str] = field(default_factory=dict)  # method -> another, instead of it
    plot: Plot | None = None
    validity: tuple[Rule, ...] = ()

    def partner(self, method: str, column: Column) -> str | None:
        """With which method it is compared in a column, if with any."""
        if column.compare is False:
            return None
        usual = self.partners.get(method, self.baseline)
        partner = usual if column.compare is True else column.compare
        return None if partner == method else partner

    @property
    def name(self) -> str:
        """That of its folder."""
        return self.folder.resolve().name

    def runs(self) -> list[Run]:
        """All runs; the first seed of everything comes before the second of anything."""
        return [
            self._run(method, dict(zip(self.grid, values, strict=True)), seed)
            for seed in self.seeds
            for values in itertools.product(*self.grid.values())
            for method in self.methods
        ]

    def _run(self, method: str, axes: dict[str, Any], seed: int) -> Run:
        place = {METHOD: method, **axes, SEED: seed}
        return Run(self.study, place, {**self.fixed, **self.methods[method], **place})
