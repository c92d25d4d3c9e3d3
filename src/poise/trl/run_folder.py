"""What a run folder says about the run: resolved configuration and versions."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ..versions import software_versions

CONFIG = "config.yaml"
VERSIONS = "versions.json"
_MAY_CHANGE = ("resume_from_checkpoint", "max_steps", "num_train_epochs", "use_cpu")


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
    (folder / CONFIG).write_text(yaml.safe_dump(sections, sort_keys=False))
    versions = software_versions() | {"started": _now()}
    (folder / VERSIONS).write_text(json.dumps(versions, indent=1))


def read_settings(folder: Path) -> dict[str, dict[str, Any]]:
    """Every argument of the run that a folder holds, by section; empty if it holds none."""
    if not (folder / CONFIG).is_file():
        return {}
    settings: dict[str, dict[str, Any]] = yaml.safe_load((folder / CONFIG).read_text())
    return settings


def changed_settings(folder: Path, **arguments: Any) -> list[str]:
    """What differs from the run that a folder holds, as `name: before -> now`.

    Left out is what may change when a run goes on: how long it is, that it goes on, and on which
    device.
    """
    before = read_settings(folder)
    if not before:
        return []
    now = {name: _plain(value) for name, value in arguments.items()}
    return [
        f"{name}: {before.get(section, {}).get(name)} -> {value}"
        for section, settings in now.items()
        for name, value in settings.items()
        if name not in _MAY_CHANGE and before.get(section, {}).get(name) != value
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """As values that YAML and JSON know; secrets are left out."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # transformers' own: hides tokens, enums as text
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))
