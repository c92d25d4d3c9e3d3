"""What a run folder says about the run: resolved configuration and versions."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

CONFIG = "config.yaml"
VERSIONS = "versions.json"
_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


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
    (folder / VERSIONS).write_text(json.dumps(versions() | {"started": _now()}, indent=1))


def versions() -> dict[str, str]:
    """Versions of Poise, of what it stands on, and the machine."""
    from .. import __version__

    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "poise": __version__,
        **packages,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _plain(value: Any) -> Any:
    """As values that YAML and JSON know; secrets are left out."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()  # transformers' own: hides tokens, enums as text
    elif is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    return json.loads(json.dumps(value, default=str))
