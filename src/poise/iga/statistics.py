"""Means of what a run does between two logged steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class RunningMeans:
    """Sums of named tensors, on the device until their means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Adds values, detached, of one shape a name: () or (n,)."""
        values = values.detach()
        total, count = self._sums.get(name, (torch.zeros_like(values), 0))
        self._sums[name] = (total.to(values) + values, count + 1)  # a restored one is on the CPU

    def take(self) -> dict[str, Any]:
        """Means since the last call by name: numbers, or lists of them."""
        sums, self._sums = self._sums, {}
        return _on_host({name: total / count for name, (total, count) in sums.items()})

    def state_dict(self) -> dict[str, list[Any]]:
        """[sums, their number] by name, as plain JSON values."""
        sums = _on_host({name: total for name, (total, _) in self._sums.items()})
        return {name: [sums[name], count] for name, (_, count) in self._sums.items()}

    def load_state_dict(self, state: dict[str, list[Any]]) -> None:
        """Takes `state_dict`'s; exact, as float64 holds every sum."""
        self._sums = {
            name: (torch.tensor(sums, dtype=torch.float64), count)
            for name, (sums, count) in state.items()
        }


def _on_host(values: dict[str, Tensor]) -> dict[str, Any]:
    """Numbers and lists of numbers, for which the host waits once a device and dtype."""
    alike: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, value in values.items():
        alike.setdefault((value.device, value.dtype), []).append(name)
    result: dict[str, Any] = dict.fromkeys(values)  # in their order
    for names in alike.values():
        flat = iter(torch.cat([values[name].flatten() for name in names]).tolist())
        for name in names:
            shape = values[name].shape
            result[name] = [next(flat) for _ in range(shape[0])] if shape else next(flat)
    return result


class LayerStatistics(NamedTuple):
    """What mask and projection did in one layer in a step, all without a unit.

    Direction space compares no domains: there `mask_mean` is the share of directions that stay,
    `suppressed_energy` the share of A's gradient that goes, and the others read 1.

    Args:
        mask_mean: mean of the mask, in (0, 1].
        suppressed_energy: 1 - |M * G|^2 / |G|^2.
        agreement: see `mask.agreement`.
        rank_energy: |P|^2 / |M * G|^2, what the projection keeps; 1 without a projection.
    """

    mask_mean: float
    suppressed_energy: float
    agreement: float
    rank_energy: float
