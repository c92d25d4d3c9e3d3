"""Models that FSDP2 has sharded: gathered unit by unit while their forward runs, and whole nowhere.

Everything here leaves other models as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate.utils import fsdp2_canonicalize_names
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

Result = TypeVar("Result")
_ENTRY = "_poise_inside_forward"


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 has the model."""
    return isinstance(model, FSDPModule)


# While a model runs.


def read_inside(model: nn.Module, work: Callable[[], Result]) -> Result:
    """Runs `work`, which calls parts of a model without a gradient, where they can be gathered.

    A part by itself is no forward that FSDP2 would know: it takes the first unit that runs for the
    root. And without a backward some units stay gathered: a step that is taken then would pass them
    by, so that they would be read as they were before it.
    """
    if not is_sharded(model):
        return work()
    results: list[Result] = []
    try:
        _inside(model, lambda: results.append(work()))
    finally:
        reshard(model)
    return results[0]


def loss_inside(model: nn.Module, work: Callable[[], Result]) -> Result:
    """Runs `work`, which calls parts of a model, inside its forward, for a backward to follow.

    Args:
        work: returns a tuple whose first is the loss.
    """
    if not is_sharded(model):
        return work()
    results: list[Any] = []

    def loss() -> Tensor:
        results.append(work())
        output: Tensor = results[0][0]
        return output

    # FSDP2 puts its hooks on the tensors that a forward returns, and hands on a copy of them in the
    # policy's output_dtype; the loss itself keeps its precision.
    _inside(model, loss)
    done: Result = results[0]
    return done


def _inside(model: Any, work: Callable[[], Any]) -> None:
    if not hasattr(model, _ENTRY):
        setattr(model, _ENTRY, _call)
        register_fsdp_forward_method(model, _ENTRY)
    getattr(model, _ENTRY)(work)


def _call(work: Callable[[], Any]) -> Any:
    return work()


def gather(model: nn.Module, part: nn.Module) -> None:
    """Gathers the units that hold a part of a model.

    Raises:
        ValueError: the part is several units.
    """
    if any(isinstance(module, FSDPModule) for module in part.modules() if module is not part):
        raise ValueError(
            f"FSDP2 shards a part of {type(part).__name__} as a unit of its own, expected all of "
            "it in one, which is gathered for the tiles of the loss; set the fsdp_config's "
            "auto_wrap_policy to TRANSFORMER_BASED_WRAP"
        )
    for unit in model.modules():
        if isinstance(unit, FSDPModule) and any(module is part for module in unit.modules()):
            unit.unshard()


def reshard(model: nn.Module) -> None:
    """Frees what is gathered of a model."""
    for unit in model.modules():
        if isinstance(unit, FSDPModule):
            unit.reshard()


def past_hooks(module: nn.Module) -> Callable[..., Any]:
    """The module's forward without FSDP2's hooks, for a unit that is gathered already.

    The hooks would take each of several calls for a use of its own, and a gradient that is taken on
    the spot for the backward.
    """
    return module.forward if isinstance(module, FSDPModule) else module


# While it rests.


def parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters at rest, of a sharded model its shards; names without what Accelerate puts
    around layers."""
    reshard(model)
    named: dict[str, nn.Parameter] = fsdp2_canonicalize_names(dict(model.named_parameters()))
    return named


def local(tensor: Any) -> Tensor:
    """A shard's own memory; a whole tensor itself."""
    own: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own


def whole(tensor: Any) -> Tensor:
    """A tensor of which each rank holds a shard, gathered; every rank calls this."""
    gathered = tensor
    if isinstance(tensor, DTensor):
        on_device: Any = tensor.to(tensor.device_mesh.device_type)  # shards may wait on the CPU
        gathered = on_device.full_tensor()
    own: Tensor = gathered
    return own


@torch.no_grad()
def fill(tensor: Any, values: Tensor) -> None:
    """Copies values into a tensor, into a shard its part of them, which every rank has whole."""
    if isinstance(tensor, DTensor):
        mesh = tensor.device_mesh
        values = distribute_tensor(
            values.to(mesh.device_type), mesh, tensor.placements, src_data_rank=None
        )
    local(tensor).copy_(local(values))
