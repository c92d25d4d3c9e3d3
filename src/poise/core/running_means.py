"""Means of what is seen between two logged steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Sums of named tensors, on the device until their means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Adds values, detached, of one shape a name."""
        values = values.detach()
        total, count = self._sums.get(name, (torch.zeros_like(values), 0))
        self._sums[name] = (total.to(values) + values, count + 1)  # a restored one is on the CPU

    def take(self) -> dict[str, Any]:
        """Means since the last call by name: numbers, or lists of them."""
        sums, self._sums = self._sums, {}
        return {name: (total / count).tolist() for name, (total, count) in sums.items()}

    def state_dict(self) -> dict[str, list[Any]]:
        """[sums, their number] by name, as plain JSON values."""
        return {name: [total.tolist(), count] for name, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[Any]]) -> None:
        """Takes `state_dict`'s; exact, as float64 holds every sum."""
        self._sums = {
            name: (torch.tensor(sums, dtype=torch.float64), count)
            for name, (sums, count) in state.items()
        }
