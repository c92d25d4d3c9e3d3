"""Poise: stable and robust LLM post-training.

The names below load on first use: `import poise` is quick, and `StepScale`, `Viscosity`,
`information_sum`, `GradientEngine`, `IGA`, `tiled_distillation_loss`,
`DistanceControl` and `policy_distance` need torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.distance import DistanceControl, policy_distance
    from .core.information import SignalSum, information_sum
    from .core.tiled_loss import tiled_distillation_loss
    from .core.viscosity import Viscosity
    from .gradients.engine import GradientEngine
    from .methods.iga import IGA
    from .training import IGAConfig, IGATrainer, PGPOConfig, PGPOTrainer, StepScale

__version__ = "0.1.0"

_HOMES = {
    "DistanceControl": "core.distance",
    "GradientEngine": "gradients.engine",
    "IGA": "methods.iga",
    "IGAConfig": "training",
    "IGATrainer": "training",
    "PGPOConfig": "training",
    "PGPOTrainer": "training",
    "SignalSum": "core.information",
    "StepScale": "training",
    "Viscosity": "core.viscosity",
    "information_sum": "core.information",
    "policy_distance": "core.distance",
    "tiled_distillation_loss": "core.tiled_loss",
}

__all__ = [
    "IGA",
    "DistanceControl",
    "GradientEngine",
    "IGAConfig",
    "IGATrainer",
    "PGPOConfig",
    "PGPOTrainer",
    "SignalSum",
    "StepScale",
    "Viscosity",
    "information_sum",
    "policy_distance",
    "tiled_distillation_loss",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
