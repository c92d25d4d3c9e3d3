"""`experiment.yaml`, read and checked before anything runs."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from . import studies
from .experiment import METHOD, SEED, Column, Experiment, Plot, Rule
from .values import is_whole, known, mapping, plain

FILE = "experiment.yaml"
FOLDER = Path("experiments")
_KEYS = (
    "study",
    "fixed",
    "methods",
    "grid",
    "seeds",
    "baseline",
    "partners",
    "validity",
    "table",
    "figure",
)


class ExperimentError(ValueError):
    """An experiment's file is wrong, or there is none."""


def find(name: str) -> Path:
    """The folder of an experiment: its name under `experiments/`, or a path.

    Raises:
        ExperimentError: there is none.
    """
    for folder in (FOLDER / name, Path(name)):
        if (folder / FILE).is_file():
            return folder
    near = difflib.get_close_matches(name, [folder.name for folder in folders()], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see `python -m lab list`"
    raise ExperimentError(
        f"{name}: expected an experiment, a folder with {FILE} under {FOLDER}/ or a path to one, "
        f"found none; {hint}"
    )


def folders() -> list[Path]:
    """The experiments under `experiments/`."""
    return sorted(file.parent for file in FOLDER.glob(f"*/{FILE}"))


def load(folder: Path) -> Experiment:
    """The experiment that a folder's `experiment.yaml` describes.

    Keys: `study`; `methods`, name -> settings; `seeds`, a list, or a number n for 1 to n; `table`,
    figure -> the fields of `Column`. Where there are any: `fixed`, settings; `grid`, axis ->
    values; `baseline`, a method; `partners`, method -> method; `validity`, a list of the fields of
    `Rule`; `figure`, the fields of `Plot`.

    Raises:
        ExperimentError: a key or value is not as it is to be; the message says which, what was
            expected and what was found.
    """
    file = folder / FILE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ExperimentError(f"{file}: expected YAML, found {error}") from None
    try:
        return _experiment(folder, mapping(content, "the file"))
    except ValueError as error:
        raise ExperimentError(f"{file}: {error}") from None


def _experiment(folder: Path, content: Mapping[str, Any]) -> Experiment:
    known(content, _KEYS, "the file")
    needed = ("study", "methods", "seeds", "table")
    absent = [key for key in needed if content.get(key) in (None, "", {}, [])]
    if absent:
        raise ValueError(f"expected {', '.join(map(repr, absent))}, found none")
    studies.require(content["study"], "study")
    methods = mapping(content["methods"], "methods")
    experiment = Experiment(
        folder=folder,
        study=content["study"],
        methods={
            str(name): mapping(own or {}, f"methods: {name}") for name, own in methods.items()
        },
        seeds=_seeds(content["seeds"]),
        table={
            name: _fields(Column, settings or {}, f"table: {name}")
            for name, settings in mapping(content["table"], "table").items()
        },
        fixed=mapping(content.get("fixed") or {}, "fixed"),
        grid={
            axis: _values(axis, values)
            for axis, values in mapping(content.get("grid") or {}, "grid").items()
        },
        baseline=content.get("baseline"),
        partners=mapping(content.get("partners") or {}, "partners"),
        plot=_plot(content.get("figure")),
        validity=_rules(content.get("validity") or [], methods),
    )
    _check_settings(experiment)
    _check_shown(experiment)
    return experiment


def _check_settings(experiment: Experiment) -> None:
    taken = {METHOD, SEED, *experiment.grid}
    parts = [("fixed", experiment.fixed)]
    parts += [(f"methods: {name}", own) for name, own in experiment.methods.items()]
    for where, settings in parts:
        for name, value in settings.items():
            if name in taken:
                raise ValueError(
                    f"{where}: {name!r} has a place of its own (grid, methods or seeds), expected "
                    "it there alone"
                )
            plain(value, f"{where}: {name}")
    if {METHOD, SEED} & set(experiment.grid):
        raise ValueError(f"grid: {METHOD!r} and {SEED!r} have keys of their own")
    if experiment.baseline is not None:
        known([experiment.baseline], experiment.methods, "baseline")
    for method, partner in experiment.partners.items():
        known([method, partner], experiment.methods, "partners")


def _check_shown(experiment: Experiment) -> None:
    for name, column in experiment.table.items():
        if bool(column.over) != bool(column.by):
            raise ValueError(f"table: {name}: expected 'over' and 'by' together or none")
        if not isinstance(column.compare, bool):
            known([column.compare], experiment.methods, f"table: {name}: compare")
        if column.over:
            known([column.over], experiment.grid, f"table: {name}: over")
        if column.by in ("trend", "slope", "range"):
            where = f"table: {name}: by {column.by}"
            _numbers(experiment, column.over, where, logarithmic=column.by != "trend")
        if column.by == "range":
            _ranged(experiment, column.over, f"table: {name}: by range")
    if (plot := experiment.plot) is None:
        return
    direct = [name for name, column in experiment.table.items() if not column.of]
    known(plot.y, direct, "figure: y")
    known(plot.log, ("x", "y"), "figure: log")
    known(plot.methods, experiment.methods, "figure: methods")
    if plot.x is not None:
        known([plot.x], experiment.grid, "figure: x")
    if "x" in plot.log:
        _numbers(experiment, plot.x, "figure: log")


def _numbers(
    experiment: Experiment, axis: str | None, where: str, logarithmic: bool = True
) -> None:
    values = experiment.grid.get(axis or "", ())
    low, expected = (0.0, "numbers above 0") if logarithmic else (-math.inf, "numbers")
    if not values or not all(isinstance(v, int | float) and v > low for v in values):
        raise ValueError(f"{where}: expected an axis of {expected}, found {list(values)}")


def _ranged(experiment: Experiment, axis: str | None, where: str) -> None:
    if experiment.baseline is None:
        raise ValueError(f"{where}: expected a baseline, found none")
    values = experiment.grid[axis or ""]
    if list(values) != sorted(values):
        raise ValueError(f"{where}: expected an axis that rises, found {list(values)}")


def _fields(cls: type, settings: Any, where: str) -> Any:
    """A dataclass from settings, its literal types and switches checked."""
    settings = mapping(settings, where)
    known(settings, [field.name for field in dataclasses.fields(cls)], where)
    for name, hint in get_type_hints(cls).items():
        # Literal["a"] | None: the choices are two levels down.
        choices = [c for part in get_args(hint) for c in get_args(part) or [part]]
        choices = [c for c in choices if isinstance(c, str)]
        if name in settings and choices and settings[name] not in choices:
            expected = ", ".join(map(repr, choices))
            raise ValueError(
                f"{where}: {name}: expected one of {expected}, found {settings[name]!r}"
            )
        if name in settings and hint is bool and not isinstance(settings[name], bool):
            raise ValueError(f"{where}: {name}: expected true or false, found {settings[name]!r}")
    return cls(**settings)


def _plot(settings: Any) -> Plot | None:
    if settings is None:
        return None
    settings = dict(mapping(settings, "figure"))
    if not settings.get("y"):
        raise ValueError("figure: expected 'y', found none")
    for name in ("y", "log", "methods"):
        value = settings.get(name) or ()
        settings[name] = (value,) if isinstance(value, str) else tuple(value)
    plot: Plot = _fields(Plot, settings, "figure")
    return plot


def _rules(found: Any, methods: Mapping[str, Any]) -> tuple[Rule, ...]:
    if not isinstance(found, list):
        raise ValueError(f"validity: expected a list of rules, found {found!r}")
    rules = []
    for settings in found:
        known(settings, [field.name for field in dataclasses.fields(Rule)], "validity")
        known([settings.get("method")], methods, "validity: method")
        bounds = [settings.get(name) for name in ("at_least", "at_most")]
        given = [bound for bound in bounds if bound is not None]
        if not isinstance(settings.get("figure"), str) or not given:
            raise ValueError(
                "validity: expected method, figure, and at_least or at_most, found "
                f"{', '.join(settings)}"
            )
        for bound in given:
            if not isinstance(bound, int | float) or isinstance(bound, bool):
                raise ValueError(f"validity: expected a number as a bound, found {bound!r}")
        rules.append(Rule(**settings))
    return tuple(rules)


def _seeds(found: Any) -> tuple[int, ...]:
    seeds = list(range(1, found + 1)) if is_whole(found) else found
    if not isinstance(seeds, list) or not seeds or not all(map(is_whole, seeds)):
        raise ValueError(f"seeds: expected whole numbers, or one n for 1 to n; found {found!r}")
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected each one once, found {seeds}")
    return tuple(seeds)


def _values(axis: str, found: Any) -> tuple[Any, ...]:
    if not isinstance(found, list) or not found:
        raise ValueError(f"grid: {axis}: expected a list of values, found {found!r}")
    for value in found:
        if isinstance(value, list | dict):
            raise ValueError(f"grid: {axis}: expected numbers, texts or switches, found {value!r}")
        plain(value, f"grid: {axis}")
    if len(set(found)) < len(found):
        raise ValueError(f"grid: {axis}: expected each value once, found {found}")
    return tuple(found)
