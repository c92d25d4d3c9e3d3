"""Reads what a training run left in its folder.

============================  ===========================================================
``config.yaml``               every setting of the run, by section (``config.json`` too)
``versions.json``             versions of the software
``metrics.jsonl``             one object a logged step: ``step`` and the trainer's log keys
``evaluation/before.jsonl``   records of the model before training
``evaluation/after.jsonl``    and after it
``layers.jsonl``              one object a logged step: ``step`` and statistics by layer
============================  ===========================================================

Representations may lie beside the records (`representation_file`).

A run may lack any of them, but not all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .records import Evaluation, read_records
from .representation_file import Representations, beside, read_representations
from .run_logs import LayerStep, RunError, is_finite, read_layers, read_steps

CONFIGS = ("config.yaml", "config.json")
VERSIONS = "versions.json"
METRICS = "metrics.jsonl"
BEFORE = "evaluation/before.jsonl"
AFTER = "evaluation/after.jsonl"
LAYERS = "layers.jsonl"

# Settings that differ between any two runs and say nothing about them.
NAMES = ("output_dir", "run_name", "logging_dir", "resume_from_checkpoint")
_SEEDS = ("seed", "data_seed", "question_seed")


@dataclass(frozen=True)
class Run:
    """A training run.

    Args:
        name: What the report calls it.
        path: Its folder.
        config: Settings, sections flattened to dotted names.
        versions: Versions of the software, and when it started.
        metrics: Logged steps in order.
        before: Evaluation before training, or None.
        after: Evaluation after training, or None.
        notes: What a reader should know, e.g. a half-written last line.
        layers: Statistics of each layer at the logged steps: step, layer, statistic -> value.
        representations: What models held in mind before and after, None where they were not read.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    metrics: tuple[Mapping[str, Any], ...]
    before: Evaluation | None
    after: Evaluation | None
    notes: tuple[str, ...] = ()
    layers: tuple[LayerStep, ...] = ()
    representations: tuple[Representations | None, Representations | None] = (None, None)

    @property
    def methods(self) -> set[str]:
        """The methods whose quantities were logged, e.g. ``pgpo`` for ``pgpo/multiplier``."""
        return {key.partition("/")[0] for line in self.metrics for key in line if "/" in key}

    def series(self, *keys: str) -> tuple[list[int], list[float]]:
        """Steps and values of the first of the keys that was logged; finite values only."""
        for key in keys:
            points = {
                int(line["step"]): float(line[key])
                for line in self.metrics
                if is_finite(line.get(key))
            }
            if points:
                steps = sorted(points)
                return steps, [points[step] for step in steps]
        return [], []

    @property
    def last_step(self) -> int:
        """The last logged step, 0 without any."""
        return max((int(line["step"]) for line in self.metrics), default=0)


def is_run(folder: str | Path) -> bool:
    """Whether the folder holds something of a training run."""
    folder = Path(folder)
    files = (METRICS, VERSIONS, CONFIGS[0], BEFORE, AFTER)
    return any((folder / name).is_file() for name in files)


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        FileNotFoundError: there is no such folder.
        RunError: the folder is no run, or a file in it is damaged.
        RecordError: an evaluation in it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"expected a run folder at {path}, found none")
    if not is_run(path):
        raise RunError(
            f"{path}: expected a run folder, with {METRICS}, {CONFIGS[0]} or {AFTER}; found none "
            "of these. Give the output_dir of a training run"
        )
    metrics, notes = read_steps(path / METRICS)
    layers, layer_notes = read_layers(path / LAYERS)
    notes += layer_notes
    before, after = (_read_evaluation(path / name) for name in (BEFORE, AFTER))
    for evaluation in (before, after):
        notes += evaluation.notes if evaluation else ()
    return Run(
        name=path.resolve().name,
        path=path,
        config=read_config(path),
        versions={k: str(v) for k, v in _read_object(path / VERSIONS).items()},
        metrics=metrics,
        before=before,
        after=after,
        notes=notes,
        layers=layers,
        representations=(_read_vectors(path / BEFORE), _read_vectors(path / AFTER)),
    )


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read several run folders; those of one name are told apart by their parents.

    Raises:
        ValueError: a folder is given twice; and as `read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    places = [run.path.resolve() for run in runs]
    for place in places:
        if places.count(place) > 1:
            raise RunError(f"{place}: the run is given twice")
    names = _distinct_names(places)
    return [Run(**vars(run) | {"name": name}) for run, name in zip(runs, names, strict=True)]


def repetitions(configs: Sequence[Mapping[str, Any]], least: int = 3) -> list[list[int]]:
    """Which runs repeat one setting with different seeds: groups of places in `configs`.

    Args:
        configs: Settings of each run, as `Run.config`.
        least: Runs without which there is no group.
    """
    groups: dict[str, dict[str, int]] = {}
    for place, config in enumerate(configs):
        parts: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        for name, value in sorted(config.items()):
            if (last := name.rpartition(".")[2]) not in NAMES:
                parts[last in _SEEDS][name] = value
        setting, seeds = (json.dumps(part, default=str) for part in parts)
        # A run that was made twice is no second piece of evidence.
        groups.setdefault(setting, {}).setdefault(seeds, place)
    return [list(group.values()) for group in groups.values() if len(group) >= least]


def _distinct_names(places: Sequence[Path]) -> list[str]:
    parts = 1
    while True:
        names = ["/".join(place.parts[-parts:]) for place in places]
        if len(set(names)) == len(names):
            return names
        parts += 1


def _read_evaluation(path: Path) -> Evaluation | None:
    return read_records(path) if path.is_file() else None


def _read_vectors(records: Path) -> Representations | None:
    path = beside(records)
    return read_representations(path) if path.is_file() else None


def read_config(folder: str | Path) -> dict[str, Any]:
    """Settings of a run, sections flattened to dotted names; empty where none were saved.

    Raises:
        RunError: the file is damaged.
    """
    return _flatten(_read_sections(Path(folder)))


def _read_sections(folder: Path) -> dict[str, Any]:
    path = folder / CONFIGS[0]
    if not path.is_file():
        config = _read_object(folder / CONFIGS[1])
        # A model of transformers has a config.json of its own, which says nothing about the run.
        return {} if "model_type" in config else config
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RunError(f"{path}: expected YAML, found {error}") from error
    if not isinstance(config, dict):
        raise RunError(f"{path}: expected settings by name, found {type(config).__name__}")
    return config


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        item = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: expected a JSON object, found {error}") from error
    if not isinstance(item, dict):
        raise RunError(f"{path}: expected a JSON object, found {type(item).__name__}")
    return item


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
