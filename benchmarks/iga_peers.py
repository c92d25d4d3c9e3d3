"""One IGA step beside peers that give gradients by domain: TorchJD's Jacobians, Opacus's hooks.

    pip install ".[peers]"
    python benchmarks/iga_peers.py [--domains 4 2 8] [--ranks 16 4 64] [--rounds 5] [--json]

The work is that of iga_step.py: forward, backward and the final gradients of the LoRA factors, on
the same batch. All sides but `plain` and `weight` end in the same gradient, IGA's in factor space,
by the same code of its mask; what differs is how the K gradients come about:

- `factor`: Poise's engine, one backward pass, products of each domain's tokens.
- `torchjd`: the Jacobian of K losses, all rows in one pass by vmap (TorchJD's default).
- `torchjd_serial`: row after row, K backward passes (`parallel_chunk_size=1`).
- `opacus`: gradients of every sequence by hooks on the factors, summed by domain.

`weight` is IGA in weight space. Peers see parameters that require gradients, here the factors. They
could be given the frozen weights, and would hold K (TorchJD) or 8 (Opacus, one a sequence) copies
of their gradients; iga_step.py's `reference` is work of that kind.

Ratios are to the plain step at the same K and rank. The first of `--domains` and of `--ranks` stay
while the other grows. Memory: the peak over two steps beyond what is resident before them, each
side in a process of its own, which takes a small step first to load libraries. A peer that is not
installed is left out, and standard error says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from iga_step import Step, Workload, to_plain
from measure import Peak, can_measure_memory, in_own_process, in_turns, peak_beyond
from poise.iga.adapters import find_adapters
from poise.iga.mask import Scratch, masked_mean
from poise.iga.settings import IGA
from poise.precision import DTYPES

SIDES = ("plain", "weight", "factor", "torchjd", "torchjd_serial", "opacus")
PACKAGES = {"torchjd": "torchjd", "torchjd_serial": "torchjd", "opacus": "opacus"}


class Peers:
    """What peers do with a workload: K gradients their way, then IGA's mask on each factor."""

    def __init__(self, work: Workload) -> None:
        self.work, self.method, self._scratch = work, IGA(space="factor"), Scratch()
        adapters = find_adapters(work.model)
        self.factors = [weight for adapter in adapters for weight in adapter.parameters]

    def torchjd(self, chunk: int | None) -> Step:
        """The Jacobian of the domains' losses, `chunk` rows at a time."""
        from torchjd.autojac import jac

        def step() -> None:
            rows = jac(self.work.losses(), self.factors, parallel_chunk_size=chunk)
            for factor, gradients in zip(self.factors, rows, strict=True):
                self._write(factor, gradients, [1.0] * self.work.domains)

        return step

    def opacus(self) -> Step:
        """Gradients by sequence, of the batch's weighted loss."""
        from opacus import GradSampleModule

        work = self.work
        work.model = GradSampleModule(work.model, loss_reduction="sum")
        units = [1 / float(weight) for weight in work.batch.weights()]

        def step() -> None:
            work.backward()
            for factor in self.factors:
                samples: Tensor = factor.grad_sample.float()  # type: ignore[attr-defined]
                factor.grad_sample = None  # type: ignore[attr-defined]
                sums = samples.new_zeros(work.domains, *factor.shape)
                self._write(factor, sums.index_add_(0, work.domain, samples), units)

        return step

    @torch.no_grad()
    def _write(self, factor: nn.Parameter, gradients: Tensor, units: Sequence[float]) -> None:
        weights, mask, tau = self.work.batch.weights(), self.method.mask, self.method.tau
        masked, _ = masked_mean(gradients, units, weights, mask, tau, self._scratch)
        factor.grad = masked.clone()  # the scratch is the next factor's


def workload(side: str, domains: int, setting: dict[str, Any]) -> tuple[Workload, Step]:
    """A side's own model and batch, and its step."""
    work = Workload(domains, **setting)
    if side == "opacus":
        return work, Peers(work).opacus()
    if side in PACKAGES:
        return work, Peers(work).torchjd(1 if side == "torchjd_serial" else None)
    return work, work.step(side)


def time_sides(
    sides: Sequence[str], rounds: int, domains: int, setting: dict[str, Any]
) -> dict[str, list[float]]:
    """Seconds of every round by side."""
    built = {side: workload(side, domains, setting) for side in sides}
    steps = {side: partial(work.timed, step) for side, (work, step) in built.items()}
    return in_turns(steps, rounds, f"K = {domains}, rank {setting['rank']}")


def memory_of(side: str, domains: int, setting: dict[str, Any]) -> Peak:
    """Of a step, beyond the model."""
    work, step = workload(side, domains, setting)
    work.resize(16)
    work.timed(step)
    work.model.zero_grad(set_to_none=True)
    for parameter in work.model.parameters():
        parameter.detach().sum()  # weights that lie in a mapped file are resident from here
    work.resize(setting["tokens"])
    return peak_beyond(lambda: work.timed(step), setting["device"])


def available(sides: Sequence[str]) -> list[str]:
    """The sides whose packages are installed, `plain` first: ratios are to it."""
    found = ["plain"]
    for side in sides:
        package = PACKAGES.get(side)
        if package is not None and importlib.util.find_spec(package) is None:
            hint = 'pip install "poise[peers]"'
            print(f"{side} is left out: no package {package} ({hint})", file=sys.stderr)
        elif side != "plain":
            found.append(side)
    return found


@dataclass(frozen=True)
class Measured:
    """Of one K and rank, by side."""

    seconds: dict[str, list[float]]
    memory: dict[str, Peak]

    def ratios(self) -> dict[str, float]:
        """To the plain step, by side and what."""
        others = [side for side in self.seconds if side != "plain"]
        found = {f"{side}_time": to_plain(self.seconds, side).middle for side in others}
        if self.memory:
            plain = self.memory["plain"].allocated
            found |= {f"{side}_memory": self.memory[side].allocated / plain for side in others}
        return {key: round(value, 3) for key, value in found.items()}

    def table(self, title: str) -> Table:
        shown = Table("side", "time, x plain (rounds)", "seconds", "memory, x plain", title=title)
        for side, seconds in self.seconds.items():
            cells = str(to_plain(self.seconds, side)), f"{statistics.median(seconds):.2f}"
            peak = ""
            if self.memory:
                own, plain = (self.memory[s].allocated for s in (side, "plain"))
                peak = f"{own / plain:.3f} ({own / 2**20:.0f} MiB)"
            shown.add_row(side, *cells, peak)
        return shown


def measure(args: argparse.Namespace, sides: Sequence[str], domains: int, rank: int) -> Measured:
    setting = {"tokens": args.tokens, "rank": rank, "model": args.model}
    setting |= {"device": args.device, "dtype": args.dtype}
    memory = {}
    if not args.no_memory:
        memory = {side: in_own_process(memory_of, side, domains, setting) for side in sides}
    return Measured(time_sides(sides, args.rounds, domains, setting), memory)


def report_of(found: dict[tuple[int, int], Measured]) -> dict[str, Any]:
    """Ratios at the first K and rank, their spread, and growth with each."""
    (at, rank), first = next(iter(found.items()))
    report: dict[str, Any] = dict(first.ratios())
    times = {s: to_plain(first.seconds, s) for s in first.seconds if s != "plain"}
    report["spread"] = {
        f"{side}_time": [round(t.low, 3), round(t.high, 3)] for side, t in times.items()
    }
    for (k, r), measured in found.items():
        for key, value in measured.ratios().items():
            if r == rank:
                report.setdefault(f"{key}_by_k", {})[str(k)] = value
            if k == at:
                report.setdefault(f"{key}_by_rank", {})[str(r)] = value
    return report


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--domains", type=int, nargs="+", default=[4, 2, 8], help="K, 1 to 8")
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 4, 64])
    parser.add_argument("--tokens", type=int, default=1024, help="in 8 sequences")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", choices=DTYPES[:3])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON object of ratios")
    args = parser.parse_args(argv)
    if not all(1 <= k <= 8 for k in args.domains):
        parser.error(f"--domains must be from 1 to 8, found {args.domains}")
    if args.tokens < 16:
        parser.error(f"--tokens must be at least 16, found {args.tokens}")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    args.no_memory |= not can_measure_memory(args.device)
    sides, (at, *more), (rank, *ranks) = available(args.sides), args.domains, args.ranks
    console = Console(file=sys.stderr if args.json else sys.stdout)
    found: dict[tuple[int, int], Measured] = {}
    for k, r in [(at, rank), *((k, rank) for k in more), *((at, r) for r in ranks)]:
        found[k, r] = measure(args, sides, k, r)
        console.print(found[k, r].table(f"K = {k}, rank {r}, {args.tokens} tokens"))
    if args.json:
        print(json.dumps(report_of(found)))


if __name__ == "__main__":
    main()
