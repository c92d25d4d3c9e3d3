"""What a run writes into its folder: logged steps, the resolved configuration, versions."""

from __future__ import annotations

import json
from contextlib import suppress
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
    line that it did not finish; a fresh one empties the file.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        path, last, kept = Path(args.output_dir) / self._name, state.global_step, ""
        for text in path.read_text().splitlines() if path.is_file() and last > 0 else ():
            try:
                step = json.loads(text)["step"]
            except ValueError:  # the line that the interruption cut
                break
            if step <= last:
                kept += text + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, kept)

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


def _replace(path: Path, text: str) -> None:
    """Writes a file that an interruption leaves as it was or as it is to be."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def last_step(path: Path) -> int:
    """The last step of a log; 0 where none is written."""
    for text in reversed(path.read_text().splitlines() if path.is_file() else []):
        with suppress(ValueError):  # a line that is not finished
            return int(json.loads(text)["step"])
    return 0


def write_run_description(folder: Path, trainer: Any, **arguments: Any) -> None:
    """Writes `config.yaml` (every argument, resolved; `arguments` are dataclasses by section) and
    `versions.json` into a run folder, on the main process."""
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
    path = folder / CONFIG
    return dict(yaml.safe_load(path.read_text())) if path.is_file() else {}


def changed_settings(folder: Path, **arguments: Any) -> list[str]:
    """What differs from the run that a folder holds, as `name: before -> now`.

    Passes over what may change when a run goes on: its length, that it goes on, its device.
    """
    changes = []
    before = read_settings(folder)
    for section, settings in arguments.items() if before else ():
        old = before.get(section, {})
        for name, value in _plain(settings).items():
            if name not in _MAY_CHANGE and old.get(name) != value:
                changes.append(f"{name}: {old.get(name)} -> {value}")
    return changes


def _plain(value: Any) -> Any:
    """As values that YAML and JSON know, without secrets."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # transformers' own: hides tokens, enums as text
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))
