"""What a trainer has logged, as figures of a run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

Lines = Sequence[dict[str, float]]


def pgpo_figures(history: Lines) -> dict[str, Any]:
    """Multipliers, signals and rewards of `PGPOTrainer`'s steps.

    `mean_multiplier` is over the steps that distilled something, the live ones: the others have no
    signal, and their multiplier, 1, scales nothing. None where there are none.
    """
    steps = [line for line in history if "pgpo/multiplier" in line]
    used = [line["pgpo/multiplier"] for line in steps]
    signals = figures_of(steps, "pgpo/information_signal")
    live = [rho for rho, signal in zip(used, signals, strict=True) if signal is not None]
    return {
        "mean_multiplier": statistics.fmean(live) if live else None,
        "live_steps": len(live),
        "multipliers": used,
        "signals": signals,
        "rewards": figures_of(steps, "self_distillation/reward_mean"),
    }


def figures_of(steps: Lines, name: str) -> list[float | None]:
    """A logged figure of every step, to five places; None where there is none, or no number."""
    found = [line.get(name, math.nan) for line in steps]
    return [round(value, 5) if math.isfinite(value) else None for value in found]
