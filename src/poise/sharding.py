"""Models that FSDP2 has sharded: gathered unit by unit while their forward runs, and whole nowhere.

A rank holds some rows of each parameter. Everything here leaves other models as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

if dist.is_available():
    from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
    from torch.distributed.tensor import DTensor, distribute_tensor

Result = TypeVar("Result")
_ENTRY = "_poise_inside_forward"


def is_sharded(module: nn.Module) -> bool:
    """Whether the module is a unit of FSDP2's, which gathers its parameters for its forward and
    backward; of a whole model, whether FSDP2 has it."""
    return dist.is_available() and isinstance(module, FSDPModule)


def is_shard(tensor: Tensor) -> bool:
    """Whether it lies on the ranks in parts. Its shape is that of the whole."""
    return dist.is_available() and isinstance(tensor, DTensor)


def number_of_ranks() -> int:
    """Ranks that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


# While a model runs.


def read_inside(model: nn.Module, work: Callable[[], Result]) -> Result:
    """Runs `work`, which calls parts of a model without a gradient, where they can be gathered.

    Without a backward some units stay gathered: a step that is taken then would pass them by, so
    that they would be read as they were before it.
    """
    if not is_sharded(model):
        return work()
    try:
        return _inside(model, work, lambda result: None)
    finally:
        reshard(model)


def loss_inside(model: nn.Module, work: Callable[[], Result]) -> Result:
    """Runs `work`, which calls parts of a model, inside its forward, for a backward to follow; it
    returns a tuple whose first is the loss.

    FSDP2 puts its hooks on the tensors that a forward returns, and hands on a copy of them in the
    policy's output_dtype; the loss itself keeps its precision.
    """
    return _inside(model, work, lambda result: result[0]) if is_sharded(model) else work()


def _inside(model: Any, work: Callable[[], Result], output: Callable[[Any], Any]) -> Result:
    """A part by itself is no forward that FSDP2 would know: it takes the first unit that runs for
    the root."""
    results: list[Result] = []

    def forward() -> Any:
        results.append(work())
        return output(results[0])

    if not hasattr(model, _ENTRY):
        setattr(model, _ENTRY, lambda work: work())
        register_fsdp_forward_method(model, _ENTRY)
    getattr(model, _ENTRY)(forward)
    return results[0]


def gather(model: nn.Module, part: nn.Module) -> None:
    """Gathers the units that hold a part of a model; raises ValueError for one of several units."""
    if _units(part) not in ([], [part]):
        raise ValueError(
            f"FSDP2 shards a part of {type(part).__name__} as a unit of its own, expected all of "
            "it in one; set the fsdp_config's auto_wrap_policy to TRANSFORMER_BASED_WRAP"
        )
    for unit in _units(model):
        if part in unit.modules():
            unit.unshard()


def reshard(model: nn.Module) -> None:
    """Frees what is gathered of a model."""
    for unit in _units(model):
        unit.reshard()


def _units(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if is_sharded(module)]


def past_hooks(module: nn.Module) -> Callable[..., Any]:
    """The module's forward without FSDP2's hooks, for a unit that is gathered already.

    The hooks would take each of several calls for a use of its own, and a gradient that is taken on
    the spot for the backward.
    """
    return module.forward if is_sharded(module) else module


def units_of(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """The unit that gathers each module's parameters: the nearest above, or itself."""
    units: dict[nn.Module, nn.Module] = {}

    def walk(module: nn.Module, unit: nn.Module | None) -> None:
        unit = module if is_sharded(module) else unit
        if unit is not None:
            units[module] = unit
        for child in module.children():
            walk(child, unit)

    walk(model, None)
    return units


# While it rests.


def local(tensor: Any) -> Tensor:
    """A shard's own rows, in the same memory, or a whole tensor itself; without history."""
    tensor = tensor.detach()
    return cast(Tensor, tensor.to_local() if is_shard(tensor) else tensor)


def own_rows(parameter: Any) -> slice:
    """Which rows `local` has; raises ValueError for what is not sharded by rows."""
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


def whole(tensor: Any) -> Tensor:
    """A tensor of which each rank holds a shard, gathered; every rank calls this."""
    if is_shard(tensor):  # which may wait on the CPU
        tensor = tensor.to(tensor.device_mesh.device_type).full_tensor()
    return cast(Tensor, tensor)


@torch.no_grad()
def fill(tensor: Any, values: Tensor) -> None:
    """Copies values into a tensor, into a shard its part of them, which every rank has whole."""
    if is_shard(tensor):
        mesh, places = tensor.device_mesh, tensor.placements
        values = distribute_tensor(values.to(mesh.device_type), mesh, places, src_data_rank=None)
    local(tensor).copy_(local(values))
