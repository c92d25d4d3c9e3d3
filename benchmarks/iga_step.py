"""Time and peak memory of one IGA step, as ratios to plain LoRA fine-tuning.

    python benchmarks/iga_step.py [--domains 2 4 8] [--rank 16] [--rounds 5] [--json]
    python benchmarks/iga_step.py --sides direction --tokens 256 --rounds 5    # one space, minutes

A step is forward, backward and the gradients of the LoRA factors, of the embedded model with
adapters (rank 16) on all linear layers, in bfloat16 where the machine is quick in it (`--dtype`);
the optimizer's part is the same on all sides and left out. Sides: plain; IGA in weight space,
factor space and direction space; the reference (one backward pass for each domain, exact SVD). They
run in turns, round after round, so that what else the machine does falls on all; a ratio is that of
medians, its spread the smallest and largest of the rounds; beside it that of the quickest rounds,
on which a busy machine has the least part. Memory is the peak of the process's
resident set (of the allocator on an accelerator), each side in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.append(str(Path(__file__).parents[1]))  # the reference is the tests' oracle

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM

from measure import in_own_process, in_turns, ratio
from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from poise.models import resolve_model
from poise.precision import DTYPES, pick_dtype
from tests.equivalence.iga_reference import reference_gradients, require_base_gradients

SIDES = ("plain", "weight", "factor", "direction", "reference")
Step = Callable[[], None]
to_plain = partial(ratio, base="plain")


class Workload:
    """A model with adapters, and one batch of whole isomer sets."""

    def __init__(
        self, domains: int, tokens: int, rank: int, model: Any, device: str, dtype: str
    ) -> None:
        torch.manual_seed(0)
        self.dtype = pick_dtype(dtype, device)
        base = model
        if isinstance(model, str):
            base = AutoModelForCausalLM.from_pretrained(
                resolve_model(model), dtype=self.dtype, attn_implementation="sdpa"
            )
        config = LoraConfig(r=rank, lora_alpha=32, target_modules="all-linear")
        self.model = get_peft_model(base, config).to(device).train()
        for name, parameter in self.model.named_parameters():
            if "lora_B" in name:  # as after some steps: zero factors would make the SVD trivial
                torch.nn.init.normal_(parameter, std=0.01)
        self.device, self.domains = torch.device(device), domains
        # 8 sequences at every K, so that the plain step is the same work.
        self.domain = torch.arange(8, device=device) * domains // 8
        self.vocabulary = base.config.vocab_size
        self.resize(tokens)

    def resize(self, tokens: int) -> None:
        """Takes a batch with this many tokens."""
        self.ids = torch.randint(3, self.vocabulary, (8, tokens // 8), device=self.device)
        counts = torch.bincount(self.domain, minlength=self.domains) * (self.ids.shape[1] - 1)
        predicting = torch.ones_like(self.ids, dtype=torch.bool)
        predicting[:, -1] = False
        self.batch = DomainBatch(self.domain, counts, predicting=predicting)

    def losses(self) -> Tensor:
        """(K,) mean losses of the domains."""
        is_low = self.dtype != torch.float32
        with torch.autocast(self.device.type, torch.bfloat16, enabled=is_low):
            logits = self.model(input_ids=self.ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.float().transpose(1, 2), self.ids[:, 1:], reduction="none"
        ).sum(1)
        sums = loss.new_zeros(self.domains).index_add(0, self.domain, loss)
        return sums / self.batch.counts.to(sums)

    def backward(self) -> None:
        weights = self.batch.weights().to(self.device, torch.float32)
        (weights * self.losses()).sum().backward()

    def step(self, side: str) -> Step:
        """One side's step."""
        if side == "plain":
            return self.backward
        if side == "reference":
            return self._reference
        engine = GradientEngine(self.model, IGA(space=side))  # type: ignore[arg-type]

        def step() -> None:
            with engine.collect(self.batch):
                engine.backward(self.losses())
            engine.finish()

        return step

    def _reference(self) -> None:
        adapters = find_adapters(self.model)
        require_base_gradients(self.model, adapters)
        weights = self.batch.weights()
        reference_gradients(self.model, adapters, self.losses(), weights, IGA(space="weight"))
        for module in self.model.modules():
            if hasattr(module, "get_base_layer"):
                module.get_base_layer().weight.requires_grad_(False)

    def timed(self, step: Step) -> float:
        """Seconds of a step."""
        self.model.zero_grad(set_to_none=True)
        self._wait()
        begin = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - begin

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def time_sides(sides: Sequence[str], rounds: int, domains: int, **setting: Any) -> dict[str, Any]:
    """Seconds of every round by side; one more round comes first and does not count."""
    work = Workload(domains, **setting)
    steps = {side: work.step(side) for side in sides}
    timed = {side: partial(work.timed, step) for side, step in steps.items()}
    return in_turns(timed, rounds, f"K = {domains}", cold=["reference"])


def peak_memory(side: str, domains: int, setting: dict[str, Any]) -> float:
    """Peak bytes of this process, which does two steps of one side."""
    work = Workload(domains, **setting)
    step = work.step(side)
    for _ in range(1 if side == "reference" else 2):
        work.timed(step)
    if work.device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def share(memory: dict[str, float], side: str) -> float:
    """Ratio to the plain step's peak."""
    return memory[side] / memory["plain"]


def quickest(seconds: dict[str, list[float]], side: str) -> float:
    """Ratio of the quickest rounds to the plain step's."""
    return min(seconds[side]) / min(seconds["plain"])


def report_of(
    seconds: dict[int, dict[str, list[float]]], memory: dict[int, dict[str, float]], at: int
) -> dict[str, Any]:
    """Ratios at one K, the spread of times, and growth of weight and direction space with K."""
    times = {side: to_plain(seconds[at], side) for side in seconds[at] if side != "plain"}
    report: dict[str, Any] = {f"{side}_time": round(t.middle, 3) for side, t in times.items()}
    report["quickest"] = {f"{side}_time": round(quickest(seconds[at], side), 3) for side in times}
    if memory:
        report |= {f"{side}_memory": round(share(memory[at], side), 3) for side in times}
    report["spread"] = {f"{s}_time": [round(t.low, 3), round(t.high, 3)] for s, t in times.items()}
    for side in times.keys() & {"weight", "direction"}:
        growth = {str(k): round(to_plain(s, side).middle, 3) for k, s in seconds.items()}
        peaks = {str(k): round(share(m, side), 3) for k, m in memory.items()}
        report |= {f"{side}_time_by_k": growth, f"{side}_memory_by_k": peaks}
    return report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", choices=DTYPES[:3])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object of ratios")
    args = parser.parse_args(argv)
    args.sides = ["plain", *(side for side in args.sides if side != "plain")]  # what ratios are to
    setting = {name: getattr(args, name) for name in ("tokens", "rank", "model", "device", "dtype")}
    at = 4 if 4 in args.domains else args.domains[0]
    memory: dict[int, dict[str, float]] = {}
    if not args.no_memory:  # first: a new process begins with the peak of the one that starts it
        memory = {
            k: {side: in_own_process(peak_memory, side, k, setting) for side in args.sides}
            for k in args.domains
        }
    seconds = {k: time_sides(args.sides, args.rounds, k, **setting) for k in args.domains}
    if args.json:
        print(json.dumps(report_of(seconds, memory, at)))
        return
    table = Table("K", "side", "seconds", "time, x plain", "rounds", "quickest", "memory, x plain")
    for k, by_side in seconds.items():
        for side, values in by_side.items():
            found = to_plain(by_side, side)
            peak = f"{share(memory[k], side):.3f}" if memory else ""
            times = f"{found.middle:.2f}", f"{found.low:.2f}-{found.high:.2f}"
            least = f"{quickest(by_side, side):.3f}"
            table.add_row(str(k), side, f"{statistics.median(values):.2f}", *times, least, peak)
    Console().print(table)


if __name__ == "__main__":
    main()
