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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """As values that YAML and JSON know; secrets are left out."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # transformers' own: hides tokens, enums as text
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))
