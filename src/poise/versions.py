"""Versions of everything that a result depends on."""

from __future__ import annotations

import importlib.metadata
import platform

from . import __version__

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def software_versions() -> dict[str, str]:
    """Versions of Poise, of what it stands on, and the machine."""
    return {
        "poise": __version__,
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
