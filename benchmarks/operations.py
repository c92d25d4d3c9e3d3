"""What a step of IGA asks of a GPU, counted: kernels, bytes that they move, waits of the host.

    python benchmarks/operations.py [--hidden 4096] [--domains 4] [--tokens 1024] [--json]

Llamas of one and of two layers, as wide as a 7B model, take a step each, on a CPU in float32; their
difference is what a layer, with LoRA on its seven matrices, costs, whatever the machine. A kernel
is an operator that reads or writes memory (views do not); its bytes are those of its inputs and
outputs, once each, so that a fused kernel moves fewer. `waits` are of the whole step, without
torch's own inside of decompositions. Sides are those of `iga_step.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # the counter of waits is the tests'

from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from iga_step import Workload
from poise.iga import mask
from tests.host_syncs import HostSyncs

SIDES = ("plain", "direction", "factor", "weight")
TORCHS_OWN = ("eigh", "svd")  # waits inside of torch's decompositions, which are batched
_MAKES_NOTHING = ("empty", "empty_like", "empty_strided", "new_empty", "resize_")


class Kernels(TorchDispatchMode):
    """Counts operators that touch memory, and the bytes of what they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not (func.is_view or name in _MAKES_NOTHING or name.startswith("_local_scalar")):
            read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            written = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            places = {x.data_ptr() for x in read}
            if func._schema.is_mutable or any(x.data_ptr() not in places for x in written):
                self.count += 1
                self.bytes += sum(x.numel() * x.element_size() for x in (*read, *written))
        return result


def count(side: str, layers: int, hidden: int, setting: dict[str, Any]) -> Counter[str]:
    """Of a side's second step: kernels, bytes, and waits of the host."""
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
    )
    work = Workload(model=LlamaForCausalLM(config), device="cpu", dtype="float32", **setting)
    step = work.step(side)
    work.timed(step)
    work.model.zero_grad(set_to_none=True)
    with Kernels() as kernels, HostSyncs() as syncs:
        step()
    waits = sum(n for kind, n in syncs.counts.items() if kind not in TORCHS_OWN)
    return Counter(kernels=kernels.count, bytes=kernels.bytes, waits=waits)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    setting = {name: getattr(args, name) for name in ("domains", "tokens", "rank")}
    mask._CPU_TILE = sys.maxsize  # matrices in one piece, as on a GPU
    report: dict[str, dict[str, float]] = {}
    for side in args.sides:
        one, two = (count(side, layers, args.hidden, setting) for layers in (1, 2))
        report[side] = {
            "kernels a layer": two["kernels"] - one["kernels"],
            "MiB a layer": round((two["bytes"] - one["bytes"]) / 2**20),
            "kernels beside": 2 * one["kernels"] - two["kernels"],
            "waits": two["waits"],
            "waits a layer": two["waits"] - one["waits"],
        }
    if args.json:
        print(json.dumps(report))
        return
    table = Table("side", *report[args.sides[0]])
    for side, figures in report.items():
        table.add_row(side, *map(str, figures.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
