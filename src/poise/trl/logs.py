"""What a run writes into its folder: logged steps, the resolved configuration, versions."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback

from ..versions import software_versions

METRICS = "metrics.jsonl"
CONFIG = "config.yaml"
VERSIONS = "versions.json"
_MAY_CHANGE = ("resume_from_checkpoint", "max_steps", "num_train_epochs", "use_cpu")


class JsonLines(TrainerCallback):  # type: ignore[misc]
    """Appends `{"step": ..., **values}` to a file of the output folder, on the main process.

    A resumed run first drops the lines that the interrupted one wrote after its checkpoint, and a
    line that it did not finish.

    Args:
        name: of the file.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            drop_after(Path(args.output_dir) / self._name, state.global_step)

    def write(self, args: Any, state: Any, values: dict[str, Any]) -> None:
        """Adds a line."""
        if state.is_world_process_zero:
            with (Path(args.output_dir) / self._name).open("a") as file:
                file.write(json.dumps({"step": state.global_step, **values}) + "\n")


class MetricsLog(JsonLines):
    """Writes what transformers logs to `metrics.jsonl`."""

    def __init__(self) -> None:
        super().__init__(METRICS)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs is not None:
            self.write(args, state, logs)


def drop_after(path: Path, last_step: int) -> None:
    """Keeps the lines of a log up to a step; 0 empties it. A missing file becomes an empty one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for text in path.read_text().splitlines() if path.is_file() and last_step > 0 else ():
        try:
            step = json.loads(text)["step"]
        except ValueError:  # the line that the interruption cut
            break
        if step <= last_step:
            kept.append(text + "\n")
    _replace(path, "".join(kept))


def _replace(path: Path, text: str) -> None:
    """Writes a file that an interruption leaves as it was or as it is to be."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def last_step(path: Path) -> int:
    """The last step of a log; 0 where none is written."""
    for text in reversed(path.read_text().splitlines() if path.is_file() else []):
        try:
            return int(json.loads(text)["step"])
        except ValueError:  # a line that is not finished
            continue
    return 0


def write_run_description(folder: Path, trainer: Any, **arguments: Any) -> None:
    """Writes `config.yaml` (every argument, resolved) and `versions.json`, on the main process.

    Args:
        folder: the run folder.
        trainer: tells the main process.
        arguments: dataclasses of arguments by section.
    """
    if not trainer.is_world_process_zero():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sections = {name: _plain(value) for name, value in arguments.items()}
    _replace(folder / CONFIG, yaml.safe_dump(sections, sort_keys=False))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    versions = software_versions() | {"started": started}
    _replace(folder / VERSIONS, json.dumps(versions, indent=1))


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Every argument of the run that a folder holds, by section; empty if it holds none."""
    if not (folder / CONFIG).is_file():
        return {}
    settings: dict[str, dict[str, Any]] = yaml.safe_load((folder / CONFIG).read_text())
    return settings


def changed_settings(folder: Path, **arguments: Any) -> list[str]:
    """What differs from the run that a folder holds, as `name: before -> now`.

    Passes over what may change when a run goes on: its length, that it goes on, its device.
    """
    before = read_settings(folder)
    return [
        f"{name}: {before.get(section, {}).get(name)} -> {value}"
        for section, settings in arguments.items()
        for name, value in (_plain(settings) if before else {}).items()
        if name not in _MAY_CHANGE and before.get(section, {}).get(name) != value
    ]


def _plain(value: Any) -> Any:
    """As values that YAML and JSON know, without secrets."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # transformers' own: hides tokens, enums as text
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))
