"""`experiment.yaml`, read and checked before anything runs."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from . import studies
from .experiment import METHOD, SEED, Column, Experiment, Plot, Rule

FILE = "experiment.yaml"
FOLDER = Path("experiments")
_NEEDED = ("study", "methods", "seeds", "table")
_KEYS = (*_NEEDED, "fixed", "grid", "baseline", "partners", "validity", "figure")
_NUMBER = re.compile(r"[+-]?\d[\d_]*\.?\d*([eE][+-]?\d+)?")


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
        ExperimentError: a key or value is wrong; the message says which, what was expected and
            what was found.
    """
    file = folder / FILE
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ExperimentError(f"{file}: expected YAML, found {error}") from None
    try:
        return _experiment(folder, _mapping(content, "the file"))
    except ValueError as error:
        raise ExperimentError(f"{file}: {error}") from None


def _experiment(folder: Path, content: Mapping[str, Any]) -> Experiment:
    _known(content, _KEYS, "the file")
    if absent := [key for key in _NEEDED if content.get(key) in (None, "", {}, [])]:
        raise ValueError(f"expected {', '.join(map(repr, absent))}, found none")
    studies.require(content["study"], "study")
    parts = {
        key: _mapping(content.get(key) or {}, key)
        for key in ("methods", "table", "fixed", "grid", "partners")
    }
    experiment = Experiment(
        folder=folder,
        study=content["study"],
        methods={
            str(name): _mapping(own or {}, f"methods: {name}")
            for name, own in parts["methods"].items()
        },
        seeds=_seeds(content["seeds"]),
        table={
            name: _fields(Column, settings or {}, f"table: {name}")
            for name, settings in parts["table"].items()
        },
        fixed=parts["fixed"],
        grid={axis: _values(axis, values) for axis, values in parts["grid"].items()},
        baseline=content.get("baseline"),
        partners=parts["partners"],
        plot=_plot(content.get("figure")),
        validity=_rules(content.get("validity") or [], parts["methods"]),
    )
    _check_settings(experiment)
    _check_table(experiment)
    if experiment.plot is not None:
        _check_plot(experiment, experiment.plot)
    return experiment


def _check_settings(experiment: Experiment) -> None:
    taken = {METHOD, SEED, *experiment.grid}
    parts = {"fixed": experiment.fixed}
    parts |= {f"methods: {name}": own for name, own in experiment.methods.items()}
    for where, settings in parts.items():
        for name, value in settings.items():
            if name in taken:
                raise ValueError(
                    f"{where}: {name!r} has its own place (grid, methods or seeds), expected it "
                    "there alone"
                )
            _plain(value, f"{where}: {name}")
    if {METHOD, SEED} & set(experiment.grid):
        raise ValueError(f"grid: {METHOD!r} and {SEED!r} have their own keys")
    if experiment.baseline is not None:
        _known([experiment.baseline], experiment.methods, "baseline")
    for method, partner in experiment.partners.items():
        _known([method, partner], experiment.methods, "partners")


def _check_table(experiment: Experiment) -> None:
    for name, column in experiment.table.items():
        where = f"table: {name}"
        if bool(column.over) != bool(column.by):
            raise ValueError(f"{where}: expected 'over' and 'by' together or none")
        if not isinstance(column.compare, bool):
            _known([column.compare], experiment.methods, f"{where}: compare")
        if column.over:
            _known([column.over], experiment.grid, f"{where}: over")
        where += f": by {column.by}"
        if column.by in ("trend", "slope", "range"):
            _check_numbers(experiment, column.over, where, logarithmic=column.by != "trend")
        if column.by == "range":
            values = list(experiment.grid[column.over or ""])
            if experiment.baseline is None:
                raise ValueError(f"{where}: expected a baseline, found none")
            if values != sorted(values):
                raise ValueError(f"{where}: expected an axis that rises, found {values}")


def _check_plot(experiment: Experiment, plot: Plot) -> None:
    direct = [name for name, column in experiment.table.items() if not column.of]
    _known(plot.y, direct, "figure: y")
    _known(plot.log, ("x", "y"), "figure: log")
    _known(plot.methods, experiment.methods, "figure: methods")
    if plot.x is not None:
        _known([plot.x], experiment.grid, "figure: x")
    if "x" in plot.log:
        _check_numbers(experiment, plot.x, "figure: log")


def _check_numbers(
    experiment: Experiment, axis: str | None, where: str, logarithmic: bool = True
) -> None:
    values = experiment.grid.get(axis or "", ())
    low, expected = (0.0, "numbers above 0") if logarithmic else (-math.inf, "numbers")
    if not values or not all(isinstance(v, int | float) and v > low for v in values):
        raise ValueError(f"{where}: expected an axis of {expected}, found {list(values)}")


def _fields(cls: type, settings: Any, where: str) -> Any:
    """A dataclass from settings, its literal types and switches checked."""
    settings = _mapping(settings, where)
    _known(settings, [field.name for field in fields(cls)], where)
    for name, hint in get_type_hints(cls).items():
        if name not in settings:
            continue
        value, kinds = settings[name], (hint, *get_args(hint))
        # Literal["a"] | None: the choices are two levels down.
        choices = [c for part in kinds for c in get_args(part) if isinstance(c, str)]
        if choices and value not in choices:
            expected = f"one of {', '.join(map(repr, choices))}"
        elif hint is bool and not isinstance(value, bool):
            expected = "true or false"
        elif float in kinds and (not isinstance(value, int | float) or isinstance(value, bool)):
            expected = "a number"
        else:
            continue
        raise ValueError(f"{where}: {name}: expected {expected}, found {value!r}")
    return cls(**settings)


def _plot(settings: Any) -> Plot | None:
    if settings is None:
        return None
    settings = dict(_mapping(settings, "figure"))
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
    for settings in found:
        settings = _mapping(settings, "validity")
        _known(settings, [field.name for field in fields(Rule)], "validity")
        is_named = isinstance(settings.get("figure"), str)
        if not is_named or not {"at_least", "at_most"} & set(settings):
            raise ValueError(
                "validity: expected method, figure, and at_least or at_most, found "
                f"{', '.join(settings)}"
            )
        _known([settings.get("method")], methods, "validity: method")
    return tuple(_fields(Rule, settings, "validity") for settings in found)


def _seeds(found: Any) -> tuple[int, ...]:
    seeds = list(range(1, found + 1)) if type(found) is int else found
    if not isinstance(seeds, list) or not seeds or any(type(seed) is not int for seed in seeds):
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
        _plain(value, f"grid: {axis}")
    if len(set(found)) < len(found):
        raise ValueError(f"grid: {axis}: expected each value once, found {found}")
    return tuple(found)


def _plain(value: Any, where: str) -> None:
    """Refuse what is no JSON, and numbers that YAML takes for text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: expected numbers, texts, lists or null, found {value!r}"
        ) from None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        raise ValueError(
            f"{where}: expected a number, found the text {value!r}; YAML wants a point and a sign "
            "in numbers with an exponent: 1.0e-3"
        )
    if isinstance(value, dict):
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        _plain(part, where)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected names with values, found {value!r}")
    return value


def _known(found: Collection[Any], names: Collection[str], where: str) -> None:
    """Refuse names that are not known; the message says which is near."""
    for name in found:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
            raise ValueError(f"{where}: unknown name {name!r}; {hint}")
