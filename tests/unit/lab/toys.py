"""Experiments with the toy study; as a script, another process that runs one.

A process that is spawned reads this file too, and so knows the study.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from lab import runner, specification, studies
from lab.experiment import Experiment

TOYS = str(Path(__file__).parent / "toy_studies")
if TOYS not in studies.__path__:
    studies.__path__.append(TOYS)

MINIMAL: dict[str, Any] = {
    "study": "toy",
    "methods": {"plain": {}, "shifted": {"shift": 1}},
    "seeds": 3,
    "table": {"score": {"better": "higher"}},
}


def write(folder: Path, **changes: Any) -> Path:
    """An experiment's folder; a change to None takes the key out."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {k: v for k, v in (MINIMAL | changes).items() if v is not None}
    text = yaml.safe_dump(content, sort_keys=False)
    (folder / specification.FILE).write_text(text)
    return folder


def toy(folder: Path, **changes: Any) -> Experiment:
    """The experiment that was written there."""
    return specification.load(write(folder, **changes))


def run_missing(experiment: Experiment, **options: Any) -> list[runner.Outcome]:
    return list(runner.run_all(experiment, runner.missing(experiment), **options))


def process(folder: Path, jobs: int = 1) -> subprocess.Popen[str]:
    """Another process that does what is missing."""
    command = [sys.executable, "-m", "tests.unit.lab.toys", str(folder), str(jobs)]
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE)


if __name__ == "__main__":
    for outcome in run_missing(specification.load(Path(sys.argv[1])), jobs=int(sys.argv[2])):
        print(outcome.status, outcome.run, flush=True)
