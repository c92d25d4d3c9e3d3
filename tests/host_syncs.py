"""Counts, on a CPU, what would make the host wait for an accelerator."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Operators whose result's shape, or whose check for errors, the host has to read.
_OPERATORS = {
    aten._local_scalar_dense: "item",  # also bool, int, float, and `if tensor`
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten._unique2: "unique",
    aten.unique_dim: "unique",
    aten.unique_consecutive: "unique",
    aten.repeat_interleave: "repeat_interleave",
    aten.bincount: "bincount",
    aten.equal: "equal",
    aten._linalg_eigh: "eigh",
    aten._linalg_svd: "svd",
}
_INDEXING = (aten.index, aten.index_put, aten.index_put_)
_MASKS = (torch.bool, torch.uint8)


class HostSyncs(TorchDispatchMode):
    """Counts waits by kind while it is entered: see `_OPERATORS`, and "mask", "cpu", "tolist" and
    "numpy".

    It cannot tell a CPU's tensors from an accelerator's, and counts both. A copy to the CPU does
    nothing on a CPU; so `.cpu()` and `.to("cpu")` are counted by their call, and `.to(device)` with
    a device that was asked of a tensor or a model is not.

    Attributes:
        counts: by kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._calls = ExitStack()

    def __enter__(self) -> Self:
        # A mode for functions would be off inside of `backward`.
        for name in ("cpu", "numpy", "to", "tolist"):
            self._calls.enter_context(patch.object(Tensor, name, self._counted(name)))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._calls.close()

    def _counted(self, name: str) -> Any:
        call = getattr(Tensor, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            if name != "to" or _is_cpu(args, kwargs):
                self.counts["cpu" if name == "to" else name] += 1
            return call(*args, **kwargs)

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet is aten.repeat_interleave and (kwargs or {}).get("output_size") is not None:
            packet = None
        if packet in _INDEXING and _reads_a_mask(packet, args):
            self.counts["mask"] += 1
        elif packet in _OPERATORS:
            self.counts[_OPERATORS[packet]] += 1
        return func(*args, **(kwargs or {}))


def _reads_a_mask(packet: Any, args: Any) -> bool:
    """Whether an index is a mask; one number is written through it without reading it."""
    if packet is not aten.index and args[2].numel() == 1:
        return False
    return any(index is not None and index.dtype in _MASKS for index in args[1])


def _is_cpu(args: Any, kwargs: Any) -> bool:
    """Whether the CPU is named among the arguments of `.to`."""
    return any(isinstance(value, str) and value == "cpu" for value in (*args, *kwargs.values()))
