"""Reads what a training run left in its folder.

============================  ===========================================================
``config.yaml``               every setting of the run, by section
``versions.json``             versions of the software
``metrics.jsonl``             one object a logged step: ``step`` and the trainer's log keys
``evaluation/before.jsonl``   records of the model before training
``evaluation/after.jsonl``    and after it, with representations beside them
``layers.jsonl``              one object a logged step: ``step`` and statistics by layer
============================  ===========================================================

A run may lack any of them, but not all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .records import (
    Evaluation,
    QuestionRecord,
    RecordError,
    Representations,
    beside,
    read_lines,
    read_object,
    read_records,
    read_representations,
)

CONFIG = "config.yaml"
VERSIONS = "versions.json"
METRICS = "metrics.jsonl"
BEFORE = "evaluation/before.jsonl"
AFTER = "evaluation/after.jsonl"
LAYERS = "layers.jsonl"

# Settings that differ between any two runs and say nothing about them.
NAMES = ("output_dir", "run_name", "logging_dir", "resume_from_checkpoint")
# What settings were called in 0.1, by section.
_RENAMED: Mapping[str, Mapping[str, str]] = {
    "script": {
        "dataset": "dataset_name",
        "split": "dataset_train_split",
        "questions": "count",
        "rewards": "reward_funcs",
    },
    "config": {
        name: f"iga_{name}"
        for name in ("method", "method_options", "space", "update", "applied_to", "domains")
    },
}
LayerStep = Mapping[str, Mapping[str, float]]  # layer -> statistic -> value


@dataclass(frozen=True)
class Run:
    """A training run."""

    name: str  # what the report calls it
    path: Path
    config: Mapping[str, Any]  # settings, sections flattened to dotted names
    versions: Mapping[str, str]  # of the software, and when it started
    metrics: tuple[Mapping[str, Any], ...]  # logged steps in order
    before: Evaluation | None
    after: Evaluation | None
    notes: tuple[str, ...] = ()  # what a reader should know, e.g. a half-written last line
    layers: tuple[LayerStep, ...] = ()  # at the logged steps
    # Before and after, None where models were not read.
    representations: tuple[Representations | None, Representations | None] = (None, None)

    @property
    def answers(self) -> tuple[tuple[QuestionRecord, ...], tuple[QuestionRecord, ...]]:
        """Records before and after training; none where it was not evaluated."""
        before, after = (e.questions if e is not None else () for e in (self.before, self.after))
        return before, after

    @property
    def methods(self) -> set[str]:
        """The methods whose quantities were logged, e.g. ``pgpo`` for ``pgpo/multiplier``."""
        return {key.partition("/")[0] for line in self.metrics for key in line if "/" in key}

    def series(self, *keys: str) -> tuple[list[int], list[float]]:
        """Steps and values of the first of the keys that was logged; finite values only."""
        for key in keys:
            logged = [line for line in self.metrics if _is_finite(line.get(key))]
            if points := {int(line["step"]): float(line[key]) for line in logged}:
                steps = sorted(points)
                return steps, [points[step] for step in steps]
        return [], []

    @property
    def last_step(self) -> int:
        """The last logged step, 0 without any."""
        return max((int(line["step"]) for line in self.metrics), default=0)


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: There is no such folder.
        RecordError: The folder is no run, or a file in it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"expected a run folder at {path}, found none")
    if not any((path / name).is_file() for name in (METRICS, VERSIONS, CONFIG, BEFORE, AFTER)):
        raise RecordError(
            f"{path}: expected a run folder, with {METRICS}, {CONFIG} or {AFTER}, found none of "
            "these; give the output_dir of a training"
        )
    metrics, notes = _read_steps(path / METRICS)
    layers, layer_notes = _read_steps(path / LAYERS)
    places = (path / BEFORE, path / AFTER)
    before, after = (read_records(place) if place.is_file() else None for place in places)
    files = [beside(place) for place in places]
    vectors = [read_representations(file) if file.is_file() else None for file in files]
    versions = path / VERSIONS
    software = read_object(versions.read_bytes(), str(versions)) if versions.is_file() else {}
    return Run(
        name=path.resolve().name,
        path=path,
        config=read_config(path),
        versions={name: str(version) for name, version in software.items()},
        metrics=metrics,
        before=before,
        after=after,
        notes=(*notes, *layer_notes, *(n for e in (before, after) if e for n in e.notes)),
        layers=tuple(_layer_step(path / LAYERS, n, x) for n, x in enumerate(layers, start=1)),
        representations=(vectors[0], vectors[1]),
    )


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders; those of one name are told apart by their parents.

    Raises:
        ValueError: A folder is given twice; and as `read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    places = [run.path.resolve() for run in runs]
    for place in places:
        if places.count(place) > 1:
            raise RecordError(f"{place}: the run is given twice")
    parts, names = 1, [run.name for run in runs]
    while len(set(names)) < len(names):
        parts += 1
        names = ["/".join(place.parts[-parts:]) for place in places]
    return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def read_config(folder: str | Path | None) -> dict[str, Any]:
    """Settings of a run by section and name, as in ``script.count``; empty where none were saved.

    Names of 0.1 become those of today.

    Raises:
        RecordError: The file is damaged.
    """
    path = Path(folder or "") / CONFIG
    if folder is None or not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecordError(f"{path}: expected YAML, found {error}") from error
    if not isinstance(config, dict):
        raise RecordError(f"{path}: expected settings by name, found {type(config).__name__}")
    for section, new in _RENAMED.items():
        if isinstance(found := config.get(section), dict):
            # Beside its new name, an old one holds nothing.
            config[section] = {
                new.get(x, x): v for x, v in found.items() if new.get(x) not in found
            }
    return _flatten(config)


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        is_section = isinstance(value, Mapping) and value
        flat |= _flatten(value, f"{prefix}{name}.") if is_section else {f"{prefix}{name}": value}
    return flat


def _read_steps(path: Path) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """The logged lines and what a reader should know; nothing where there is no file."""
    if not path.is_file():
        return (), ()
    steps, notes, _ = read_lines(path)
    for number, step in enumerate(steps, start=1):
        if not _is_finite(step.get("step")):
            raise RecordError(f"{path}:{number}: expected an object with a number 'step'")
    broken = sum(isinstance(v, float) and not math.isfinite(v) for x in steps for v in x.values())
    if broken:
        notes += (f"{path}: {broken} logged values are not finite and are not drawn",)
    return tuple(steps), notes


def _layer_step(path: Path, number: int, line: Mapping[str, Any]) -> LayerStep:
    layers = line.get("layers")
    if not isinstance(layers, dict) or not all(isinstance(x, dict) for x in layers.values()):
        raise RecordError(f"{path}:{number}: expected 'layers' with statistics by layer's name")
    return {
        name: {key: float(value) for key, value in found.items() if _is_finite(value)}
        for name, found in layers.items()
    }


def _is_finite(value: Any) -> bool:
    """Whether a logged value can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
