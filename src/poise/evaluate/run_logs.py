"""Reads what a trainer logged: JSON lines with a number ``step`` each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Lines = tuple[dict[str, Any], ...]
Notes = tuple[str, ...]


class RunError(ValueError):
    """A run folder is not what was expected; the message names file and line."""


@dataclass(frozen=True)
class LayerStep:
    """Statistics of every adapted layer at one step.

    Args:
        step: The step.
        layers: Layer -> statistic -> value.
    """

    step: int
    layers: Mapping[str, Mapping[str, float]]


def read_steps(path: Path) -> tuple[Lines, Notes]:
    """The logged lines and what a reader should know; nothing where there is no file.

    Raises:
        RunError: a line is damaged, other than a half-written last one.
    """
    if not path.is_file():
        return (), ()
    lines = path.read_bytes().split(b"\n")
    complete, rest = lines[:-1], lines[-1]
    steps = tuple(_step_line(path, n, line) for n, line in enumerate(complete, start=1))
    notes = [f"{path}:{len(lines)}: left out, the line is half-written"] if rest else []
    broken = sum(isinstance(v, float) and not math.isfinite(v) for x in steps for v in x.values())
    if broken:
        notes.append(f"{path}: {broken} logged values are not finite and are not drawn")
    return steps, tuple(notes)


def read_layers(path: Path) -> tuple[tuple[LayerStep, ...], Notes]:
    """The statistics of layers, without values that are not finite.

    Raises:
        RunError: a line is damaged.
    """
    lines, notes = read_steps(path)
    return tuple(_layer_step(path, n, line) for n, line in enumerate(lines, start=1)), notes


def _layer_step(path: Path, number: int, line: Mapping[str, Any]) -> LayerStep:
    layers = line.get("layers")
    if not isinstance(layers, dict) or not all(isinstance(x, dict) for x in layers.values()):
        raise RunError(f"{path}:{number}: expected 'layers' with statistics by layer's name")
    known = {
        name: {key: float(value) for key, value in found.items() if is_finite(value)}
        for name, found in layers.items()
    }
    return LayerStep(int(line["step"]), known)


def _step_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise RunError(f"{path}:{number}: expected a JSON object, found {error}") from error
    if not isinstance(item, dict) or not is_finite(item.get("step")):
        raise RunError(f"{path}:{number}: expected an object with a number 'step'")
    return item


def is_finite(value: Any) -> bool:
    """Whether a logged value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
