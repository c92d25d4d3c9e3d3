"""Trainers on TRL's, and the step scale that works in any torch loop.

The trainers' names load on first use: the step scale needs torch alone, not TRL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..extras import what_to_install
from .step_scale import StepRecord, StepScale

if TYPE_CHECKING:
    from .iga_config import IGAConfig
    from .iga_trainer import IGATrainer
    from .pgpo_config import PGPOConfig
    from .pgpo_trainer import PGPOTrainer

_LAZY = {
    "IGAConfig": ".iga_config",
    "IGATrainer": ".iga_trainer",
    "PGPOConfig": ".pgpo_config",
    "PGPOTrainer": ".pgpo_trainer",
}

__all__ = ["IGAConfig", "IGATrainer", "PGPOConfig", "PGPOTrainer", "StepRecord", "StepScale"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name], __name__), name)
    except ModuleNotFoundError as error:
        if advice := what_to_install(error):
            raise ImportError(f"{name}: {advice}", name=__name__) from error
        raise
