"""What a trainer has logged, as figures of a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

Lines = Sequence[dict[str, float]]


def pgpo_figures(history: Lines) -> dict[str, Any]:
    """Multipliers, signals and rewards of `PGPOTrainer`'s steps, and the mean multiplier."""
    steps = [line for line in history if "pgpo/multiplier" in line]
    used = [line["pgpo/multiplier"] for line in steps]
    return {
        "mean_multiplier": statistics.fmean(used),
        "multipliers": used,
        "signals": figures_of(steps, "pgpo/information_signal"),
        "rewards": figures_of(steps, "self_distillation/reward_mean"),
    }


def figures_of(steps: Lines, name: str) -> list[float | None]:
    """A logged figure of every step, to five places; None where nothing was distilled."""
    return [round(line[name], 5) if name in line else None for line in steps]
