"""An experiment: a grid of runs, and what its table and figure show."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

METHOD, SEED = "method", "seed"  # names in a run's settings that are the harness's own


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Args:
        study: Its name.
        place: Method, axes' values and seed: where in the grid it stands.
        config: All settings, those of `place` among them.
    """

    study: str
    place: Mapping[str, Any]
    config: Mapping[str, Any]

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
        compare: Whether it is compared with the baseline, and so counts among the comparisons.
        test: The paired test: Student's t, or Wilcoxon's signed ranks.
        of, over, by: A figure of each method and seed that comes from the figure `of` of several
            runs, reduced over the axis `over`: its mean, max or min; the slope of log `of`
            against log `over` (least squares); or its range, in decades of `over`: the longest
            stretch of neighbouring values at which `of` is within `margin` of the baseline's best
            mean, with half a step beyond either end.
        margin: Of the range.
    """

    better: Literal["higher", "lower"] | None = None
    percent: bool = False
    compare: bool = True
    test: Literal["t", "wilcoxon"] = "t"
    of: str | None = None
    over: str | None = None
    by: Literal["mean", "max", "min", "slope", "range"] | None = None
    margin: float = 0.0


@dataclass(frozen=True)
class Plot:
    """The figure: one line a method, one panel for each `y` and each value of the other axes.

    Args:
        y: Names of figures, all of them in the table.
        x: An axis; None puts the methods side by side.
        log: The axes, of "x" and "y", that are logarithmic.
    """

    y: tuple[str, ...]
    x: str | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """What varies, and what is shown; see `specification.load`.

    Args:
        folder: Where it lives, with its results.
        study: Name of a module in `studies`.
        methods: Name -> its settings.
        seeds: In the order in which they run.
        table: Figure -> how it is shown.
        fixed: Settings of all runs; a method's own go before them.
        grid: Axis -> its values, beside methods and seeds.
        baseline: The method with which the others are compared.
        partners: Method -> another one with which it is compared instead.
        plot: The figure.
    """

    folder: Path
    study: str
    methods: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    table: Mapping[str, Column]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    baseline: str | None = None
    partners: Mapping[str, str] = field(default_factory=dict)
    plot: Plot | None = None

    def partner(self, method: str) -> str | None:
        """With which method it is compared; None for the baseline, or without one."""
        partner = self.partners.get(method, self.baseline)
        return None if partner == method else partner

    def named_partner(self, method: str) -> str | None:
        """The same if it is not the baseline, so that tables have to name it."""
        partner = self.partner(method)
        return None if partner == self.baseline else partner

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
