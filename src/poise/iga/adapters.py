"""The LoRA matrices of a PEFT model, as the engine needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..sharding import is_sharded

# PEFT's LoRA on linear layers: y = base(x) + s B(A(dropout(x))), by their modules. They are not
# imported: most need a library of their own.
LINEAR = {
    f"peft.tuners.lora.{name}"
    for name in (
        "layer.Linear",
        "bnb.Linear4bit",
        "bnb.Linear8bitLt",
        "torchao.TorchaoLoraLinear",
        "gptq.GPTQLoraLinear",
        "awq.AwqLoraLinear",
        "aqlm.AqlmLoraLinear",
        "hqq.HqqLoraLinear",
        "eetq.EetqLoraLinear",
    )
}


class Factors(NamedTuple):
    """A pair of LoRA factors, or of their gradients.

    Args:
        down: A, (r, in).
        up: B, (out, r).
    """

    down: Tensor
    up: Tensor


@dataclass(frozen=True)
class Adapter:
    """One pair of LoRA factors of one layer: y = W0 x + s B A x.

    Args:
        name: the layer's name, and the adapter's where there are several.
        source: the module whose input is x: `down` behind a dropout, else the layer itself, whose
            input the layers beside it share (PEFT hands `down` a float32 copy of bfloat16).
        down: the linear module that holds A, (r, in).
        up: the linear module that holds B, (out, r).
        scaling: s.
        trained: whether A and B are.
    """

    name: str
    source: nn.Module
    down: nn.Linear
    up: nn.Linear
    scaling: float
    trained: tuple[bool, bool]

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
            found += _adapters_of(path.replace("_checkpoint_wrapped_module.", ""), layer)
        elif isinstance(layer, BaseTunerLayer) and any(
            parameter.requires_grad
            for name in getattr(layer, "adapter_layer_names", ())
            for parameter in getattr(layer, name).parameters()
        ):
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


def _adapters_of(path: str, layer: Any) -> Iterator[Adapter]:
    for name in layer.active_adapters:
        if not _is_trained(layer, name):
            continue
        kind = type(layer).__mro__[2] if is_sharded(layer) else type(layer)  # under FSDP2's own
        if f"{kind.__module__}.{kind.__name__}" not in LINEAR:
            raise UnsupportedAdapter(
                f"{path}: expected LoRA on a linear layer, found {kind.__module__}."
                f"{kind.__name__} (an embedding, a convolution, ...); leave it out of "
                "target_modules"
            )
        if name in layer.lora_variant:
            variant = type(layer.lora_variant[name]).__name__
            raise UnsupportedAdapter(
                f"{path}: expected plain LoRA, found {variant}; its weight is no sum W0 + s B A, "
                "so use LoraConfig without it (use_dora=False, ...)"
            )
        if "experts" in path.split("."):
            raise UnsupportedAdapter(
                f"{path}: expected a layer that sees every token, found an expert's, which gets "
                "tokens without their sequence, and so without their domain; leave experts out of "
                "target_modules (exclude_modules=r'.*experts.*')"
            )
        if not layer.scaling[name]:
            raise UnsupportedAdapter(
                f"{path}: expected a scaling other than 0, found lora_alpha=0, with which nothing "
                "is trained; set lora_alpha above 0"
            )
        several = len(layer.active_adapters) > 1
        down, up = layer.lora_A[name], layer.lora_B[name]
        yield Adapter(
            f"{path}.{name}" if several else path,
            layer if isinstance(layer.lora_dropout[name], nn.Identity) else down,
            down,
            up,
            float(layer.scaling[name]),
            (down.weight.requires_grad, up.weight.requires_grad),
        )


def _is_trained(layer: Any, name: str) -> bool:
    names = layer.adapter_layer_names
    parts = [getattr(layer, n)[name] for n in names if name in getattr(layer, n)]
    parameters = [p for m in parts for p in (m.parameters() if isinstance(m, nn.Module) else [m])]
    return any(parameter.requires_grad for parameter in parameters)
