"""What the mask and the projection did in each layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class LayerStatistics(NamedTuple):
    """One layer in a step, all without a unit.

    Args:
        mask_mean: mean of the mask, in (0, 1].
        suppressed_energy: 1 - |M * G|^2 / |G|^2.
        agreement: mean cosine between the domains' gradients, see `core.conflict.agreement`.
        rank_energy: |P|^2 / |M * G|^2, what the projection keeps; 1 without a projection.
    """

    mask_mean: float
    suppressed_energy: float
    agreement: float
    rank_energy: float


class StatisticsLog:
    """Sums of the layers' statistics, on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, layer: str, values: Tensor) -> None:
        """Adds (4,) values, the fields of `LayerStatistics`."""
        total, count = self._sums.get(layer, (torch.zeros_like(values), 0))
        self._sums[layer] = (total.to(values) + values, count + 1)  # a restored one is on the CPU

    def pop(self) -> dict[str, LayerStatistics]:
        """Means since the last call, by layer."""
        sums, self._sums = self._sums, {}
        return {
            layer: LayerStatistics(*(total / count).tolist())
            for layer, (total, count) in sums.items()
        }

    def state_dict(self) -> dict[str, list[Any]]:
        """[sums of the fields, their number] by layer, as plain JSON values."""
        return {layer: [total.tolist(), count] for layer, (total, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[Any]]) -> None:
        """Takes `state_dict`'s; exact, as float64 holds every sum."""
        self._sums = {
            layer: (torch.tensor(sums, dtype=torch.float64), count)
            for layer, (sums, count) in state.items()
        }
