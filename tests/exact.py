"""Training in float64, where two ways to the same weights differ by rounding alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from trl.kernels import ChunkedLogProbFunction

# How far two runs of some tens of steps may be apart, relative to the weights: eps, by 1e3
# operations on the way from a weight to its gradient, by 1e2 steps, by 1e2 for what Adam makes of
# a gradient that is next to zero. A float32 anywhere on the way would show as 1e-8 or more.
ROUNDING = torch.finfo(torch.float64).eps * 1e7


class InFloat64(TorchFunctionMode):
    """Turns the casts to float32 inside models and losses into casts to float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def widen(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        func = torch.Tensor.double if func is torch.Tensor.float else func
        return func(*map(widen, args), **{k: widen(v) for k, v in (kwargs or {}).items()})


# What runs inside a backward pass, where torch has no modes: layers that are recomputed, and the
# loss of TRL's SFT.
_IN_BACKWARD = ((LlamaDecoderLayer, "forward"), (ChunkedLogProbFunction, "backward"))


@contextmanager
def in_float64() -> Iterator[None]:
    """Everything inside is in float64, new tensors too."""
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.MonkeyPatch.context() as patch, InFloat64():
            for owner, name in _IN_BACKWARD:
                patch.setattr(owner, name, _exactly(getattr(owner, name)))
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def _exactly(function: Callable[..., Any]) -> Callable[..., Any]:
    def exact(*args: Any, **kwargs: Any) -> Any:
        with InFloat64():
            return function(*args, **kwargs)

    return exact


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """To the bit on the CPU; a GPU adds up in an order of its own."""
    if any(weight.device.type != "cpu" for weight in expected.values()):
        return apart(found, expected) <= ROUNDING
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], weight) for name, weight in expected.items()
    )


def apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The difference of all weights relative to their size."""
    assert found.keys() == expected.keys()
    assert all(weight.dtype == torch.float64 for weight in (found | expected).values())
    difference = torch.cat([(found[n] - w).flatten() for n, w in expected.items()]).norm()
    return float(difference / torch.cat([w.flatten() for w in expected.values()]).norm())
