"""Poise: stable and robust LLM post-training.

The names below load on first use: `import poise` is quick, and all but the trainers and their
configurations need torch alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import _old_names
from .extras import what_to_install

if TYPE_CHECKING:
    from .iga.config import IGAConfig as IGAConfig
    from .iga.engine import GradientEngine as GradientEngine
    from .iga.settings import IGA as IGA
    from .iga.trainer import IGATrainer as IGATrainer
    from .loss.tiled import tiled_distillation_loss as tiled_distillation_loss
    from .pgpo.config import PGPOConfig as PGPOConfig
    from .pgpo.distance import DistanceControl as DistanceControl
    from .pgpo.distance import policy_distance as policy_distance
    from .pgpo.signal import SignalSum as SignalSum
    from .pgpo.signal import information_sum as information_sum
    from .pgpo.step_scale import StepRecord as StepRecord
    from .pgpo.step_scale import StepScale as StepScale
    from .pgpo.trainer import PGPOTrainer as PGPOTrainer
    from .pgpo.viscosity import Viscosity as Viscosity


__version__ = "0.1.0"

_HOMES = {
    "DistanceControl": "pgpo.distance",
    "GradientEngine": "iga.engine",
    "IGA": "iga.settings",
    "IGAConfig": "iga.config",
    "IGATrainer": "iga.trainer",
    "PGPOConfig": "pgpo.config",
    "PGPOTrainer": "pgpo.trainer",
    "SignalSum": "pgpo.signal",
    "StepRecord": "pgpo.step_scale",
    "StepScale": "pgpo.step_scale",
    "Viscosity": "pgpo.viscosity",
    "information_sum": "pgpo.signal",
    "policy_distance": "pgpo.distance",
    "tiled_distillation_loss": "loss.tiled",
}

__all__ = sorted(_HOMES)

_old_names.install()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if advice := what_to_install(error):
            raise ImportError(f"{name}: {advice}", name=__name__) from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
