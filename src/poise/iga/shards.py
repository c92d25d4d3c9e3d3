"""Parameters under FSDP2: a rank holds some rows, and the whole while the unit's layers run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

if dist.is_available():
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


def number_of_ranks() -> int:
    """Ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_shard(parameter: Tensor) -> bool:
    """Whether it lies on the ranks in parts. Its shape is that of the whole."""
    return dist.is_available() and isinstance(parameter, DTensor)


def is_unit(module: nn.Module) -> bool:
    """Whether FSDP2 gathers this module's parameters for its forward and backward."""
    return dist.is_available() and isinstance(module, FSDPModule)


def units_of(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """The unit that gathers each module's parameters: the nearest above, or itself."""
    units: dict[nn.Module, nn.Module] = {}

    def walk(module: nn.Module, unit: nn.Module | None) -> None:
        unit = module if is_unit(module) else unit
        if unit is not None:
            units[module] = unit
        for child in module.children():
            walk(child, unit)

    walk(model, None)
    return units


def local(parameter: Any) -> Tensor:
    """The rows that this rank holds, in the same memory; without history."""
    parameter = parameter.detach()
    own: Tensor = parameter.to_local() if is_shard(parameter) else parameter
    return own


def own_rows(parameter: Any) -> slice:
    """Which rows `local` has.

    Raises:
        ValueError: it is not sharded by rows.
    """
    start, rows = 0, parameter.shape[0]
    if not is_shard(parameter):
        return slice(start, rows)
    mesh = parameter.device_mesh
    for dim, placement in enumerate(parameter.placements):
        if placement.is_replicate():
            continue
        if not placement.is_shard(0):
            raise ValueError(
                f"expected LoRA factors that are sharded by rows, found {placement}; leave "
                "shard_placement_fn out"
            )
        # As torch.chunk: the last parts may be smaller, or empty.
        part = -(-rows // mesh.size(dim))
        first = min(part * mesh.get_local_rank(dim), rows)
        start, rows = start + first, min(part, rows - first)
    return slice(start, start + rows)


def among_zeros(rows: Tensor, parameter: Any) -> Tensor:
    """The rows that belong to `local(parameter)` among zeros for the others, as a part of a sum."""
    if not is_shard(parameter):
        return rows
    whole = rows.new_zeros(parameter.shape[0], rows.shape[1])
    mesh, placements = parameter.device_mesh, parameter.placements
    copies = (mesh.get_local_rank(d) for d, p in enumerate(placements) if p.is_replicate())
    if not any(copies):  # the first of those that hold the same rows
        whole[own_rows(parameter)] = rows
    return whole


def add_up(parts: Sequence[Tensor]) -> None:
    """Sums over ranks, in place, all of them at once."""
    if not parts:
        return
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    for part, total in zip(parts, torch.split(flat, [p.numel() for p in parts]), strict=True):
        part.copy_(total.view_as(part))
