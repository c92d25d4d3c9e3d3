"""LoRA matrices of a model, and what every space of IGA is to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..sharding import is_sharded
from .domains import Pass

# PEFT's LoRA on linear layers: y = base(x) + s B(A(dropout(x))), by their modules. They are not
# imported: most need a library of their own.
LINEAR = {
    "peft.tuners.lora.layer.Linear",
    "peft.tuners.lora.torchao.TorchaoLoraLinear",
    "peft.tuners.lora.bnb.Linear4bit",
    "peft.tuners.lora.bnb.Linear8bitLt",
    "peft.tuners.lora.awq.AwqLoraLinear",
    "peft.tuners.lora.aqlm.AqlmLoraLinear",
    "peft.tuners.lora.hqq.HqqLoraLinear",
    "peft.tuners.lora.eetq.EetqLoraLinear",
    "peft.tuners.lora.gptq.GPTQLoraLinear",
}
DECAY = 0.9  # of running sums, a step
LEAST = 1e-3  # what a domain weighs in them, below which it is forgotten


class Factors(NamedTuple):
    """A pair of LoRA factors, or of their gradients: A, (r, in), and B, (out, r)."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Adapter:
    """One pair of LoRA factors of one layer: y = W0 x + s B A x."""

    name: str  # the layer's, and the adapter's where there are several
    # The module whose input is x: `down` behind a dropout, else the layer itself, whose input the
    # layers beside it share (PEFT hands `down` a float32 copy of bfloat16).
    source: nn.Module
    down: nn.Linear  # holds A, (r, in)
    up: nn.Linear  # holds B, (out, r)
    scaling: float  # s
    trained: tuple[bool, bool]  # whether A and B are

    @property
    def factors(self) -> Factors:
        """A and B as they are now, without their history."""
        return Factors(self.down.weight.detach(), self.up.weight.detach())

    @property
    def parameters(self) -> tuple[Tensor, Tensor]:
        """A and B as parameters."""
        return self.down.weight, self.up.weight


class UnsupportedAdapter(ValueError):
    """A trainable adapter whose gradient the engine cannot take apart by domain."""


def find_adapters(model: nn.Module) -> list[Adapter]:
    """All LoRA matrices of linear layers that are active and trained, in the model's order.

    The base weight is never read, whatever holds it. Other trained parameters (biases,
    `modules_to_save`) keep their plain gradient.

    Raises:
        UnsupportedAdapter: a trained adapter of another kind (DoRA, embeddings, convolutions,
            experts of a mixture, ...), a compiled one, adapters on several devices, or none at all.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    found: list[Adapter] = []
    for path, layer in model.named_modules():
        # torch.compile(module), whose class is not imported without need; or module.compile().
        is_compiled = type(layer).__name__ == "OptimizedModule" or layer._compiled_call_impl
        if is_compiled and any(isinstance(inner, BaseTunerLayer) for inner in layer.modules()):
            raise UnsupportedAdapter(
                f"{path or type(layer).__name__}: expected layers that run as they are, found them "
                "under torch.compile, which passes over the engine's hooks; leave it uncompiled"
            )
        if isinstance(layer, LoraLayer):
            # Named as its parameters are: accelerate's activation checkpointing wraps layers.
            path = path.replace("_checkpoint_wrapped_module.", "")
            trained = [name for name in layer.active_adapters if _is_trained(layer, name)]
            found += [_adapter_of(path, layer, name) for name in trained]
        elif isinstance(layer, BaseTunerLayer) and _is_trained(layer):
            raise UnsupportedAdapter(
                f"{path}: expected LoRA, found {type(layer).__name__}; IGA is built for LoRA on "
                "linear layers"
            )
    devices = {str(parameter.device) for a in found for parameter in a.parameters}
    if len(devices) > 1:
        raise UnsupportedAdapter(
            f"expected adapters on one device, found them on {', '.join(sorted(devices))}; load "
            "the model without device_map, or with device_map={'': 0}"
        )
    if not found:
        raise UnsupportedAdapter(
            f"expected a PEFT model with trainable LoRA adapters, found none in "
            f"{type(model).__name__}; wrap it by peft.get_peft_model(model, LoraConfig(...))"
        )
    return found


def _is_trained(layer: Any, adapter: str | None = None) -> bool:
    """Whether an adapter of a layer is; without a name, whether any is."""
    parts = [getattr(layer, name) for name in getattr(layer, "adapter_layer_names", ())]
    return any(
        parameter.requires_grad and adapter in (None, path.split(".")[0])
        for part in parts
        for path, parameter in part.named_parameters()
    )


def _adapter_of(path: str, layer: Any, name: str) -> Adapter:
    cls = type(layer).__mro__[2] if is_sharded(layer) else type(layer)  # under FSDP2's own
    kind, variant = f"{cls.__module__}.{cls.__name__}", layer.lora_variant.get(name)
    for is_wrong, reason in (
        (
            kind not in LINEAR,
            f"expected LoRA on a linear layer, found {kind} (an embedding, a convolution, ...); "
            "leave it out of target_modules",
        ),
        (
            variant is not None,
            f"expected plain LoRA, found {type(variant).__name__}; its weight is no sum "
            "W0 + s B A, so use LoraConfig without it (use_dora=False, ...)",
        ),
        (
            "experts" in path.split("."),
            "expected a layer that sees every token, found an expert's, which gets tokens without "
            "their sequence, and so without their domain; leave experts out of target_modules "
            "(exclude_modules=r'.*experts.*')",
        ),
        (
            not layer.scaling[name],
            "expected a scaling other than 0, found lora_alpha=0, with which nothing is trained; "
            "set lora_alpha above 0",
        ),
    ):
        if is_wrong:
            raise UnsupportedAdapter(f"{path}: {reason}")
    down, up = layer.lora_A[name], layer.lora_B[name]
    return Adapter(
        f"{path}.{name}" if len(layer.active_adapters) > 1 else path,
        layer if isinstance(layer.lora_dropout[name], nn.Identity) else down,
        down,
        up,
        float(layer.scaling[name]),
        (down.weight.requires_grad, up.weight.requires_grad),
    )


# What a space is to the engine: hooks for a pass, gradients for a step, state for a run.


class LayerStatistics(NamedTuple):
    """What mask and projection did in one layer in a step, all without a unit.

    Direction space compares no domains: there `mask_mean` is the share of directions that stay,
    `suppressed_energy` the share of A's gradient that goes, and the others read 1.
    """

    mask_mean: float  # in (0, 1]
    suppressed_energy: float  # 1 - |M * G|^2 / |G|^2
    agreement: float  # see `mask.agreement`
    rank_energy: float  # |P|^2 / |M * G|^2, what the projection keeps; 1 without a projection


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
    """Numbers and lists of numbers, for which the host waits once a device."""
    result: dict[str, Any] = dict.fromkeys(values)  # in their order
    for device in {value.device for value in values.values()}:
        own = {name: value for name, value in values.items() if value.device == device}
        flat = iter(torch.cat([value.flatten() for value in own.values()]).tolist())
        for name, value in own.items():
            result[name] = [next(flat) for _ in range(len(value))] if value.dim() else next(flat)
    return result


class Space:
    """Makes the gradients of a step. What a space does not need does nothing.

    Attributes:
        statistics: (4,) values by layer, the fields of `LayerStatistics`.
        shapes: of what a state may hold; None is any size.
    """

    shapes: Mapping[str, tuple[int | None, ...]] = {}

    def __init__(self) -> None:
        self.statistics = RunningMeans()

    def attach(self, watched: Pass) -> None:
        """Hooks every layer for one forward and backward pass."""

    def detach(self) -> None:
        """Ends a pass, also an interrupted one."""

    def reset(self) -> None:
        """Forgets the step so far."""

    def finish(self, learning_rate: float | None) -> None:
        """Completes the step's gradients in `.grad`."""

    def before_step(self) -> None:
        """Before the optimizer's step."""

    def after_step(self) -> None:
        """After it."""

    def state_dict(self) -> dict[str, Tensor]:
        """What carries over from step to step."""
        return {}

    def take(self, state: dict[str, Tensor]) -> None:
        """Goes on from a state of the right shapes."""


@cache
def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on devices without it, where counts are exact up to 2^24."""
    try:
        torch.ones((), dtype=torch.float64, device=device).add_(1)
    except (RuntimeError, TypeError):
        return torch.float32
    return torch.float64
