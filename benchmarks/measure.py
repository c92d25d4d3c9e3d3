"""What the benchmarks share: sides in turns, ratios with their spread, memory apart."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

Step = Callable[[], float]  # does a step; returns its seconds
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Ratio:
    """Of medians; the smallest and the largest of the rounds beside it."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} ({self.low:.3f}-{self.high:.3f})"


def in_turns(
    steps: Mapping[str, Step], rounds: int, label: str, cold: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Seconds of every round by side; one more round comes first and does not count.

    Every other round goes through the sides backwards, so that none always follows the same one.
    Sides in `cold` are slow, a warm start is nothing to them: they stay out of the first round.
    """
    seconds: dict[str, list[float]] = {side: [] for side in steps}
    console = Console(stderr=True)
    for turn in track(range(rounds + 1), label, console=console, transient=True):
        for side in list(steps)[:: 1 if turn % 2 else -1]:
            if turn:
                seconds[side].append(steps[side]())
            elif side not in cold:
                steps[side]()
    return seconds


def ratio(seconds: Mapping[str, list[float]], side: str, base: str) -> Ratio:
    """A side's time in units of another's, round by round."""
    single = [a / b for a, b in zip(seconds[side], seconds[base], strict=True)]
    middle = statistics.median(seconds[side]) / statistics.median(seconds[base])
    return Ratio(middle, min(single), max(single))


def can_measure_memory(device: str) -> bool:
    """Whether `peak_beyond` knows how; where not, it says so."""
    if torch.device(device).type == "cuda" or _RESET.exists():
        return True
    print("No memory: it is read from /proc (Linux) or a CUDA allocator.", file=sys.stderr)
    return False


def in_own_process(function: Callable[..., float], *arguments: Any) -> float:
    """The function's result from a fresh process, which begins with no memory of this one's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def peak_beyond(step: Callable[[], Any], device: str) -> float:
    """Bytes that a step holds at its peak, beyond what the process holds before it.

    On a CPU the process's resident set, whose peak is set back first; on an accelerator the
    allocator's bytes.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    _RESET.write_text("5")  # see proc(5): the peak becomes what is resident now
    resident = _status("VmRSS")
    step()
    return float(_status("VmHWM") - resident)


def _status(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
