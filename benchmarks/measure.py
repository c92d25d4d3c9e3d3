"""What the benchmarks share: sides in turns, ratios with their spread, memory apart."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import track

T = TypeVar("T")
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


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """The function's result from a fresh process, which begins with no memory of this one's."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@dataclass(frozen=True)
class Peak:
    """Bytes that a step holds at its peak, beyond what is held before it.

    Args:
        allocated: by tensors, as torch's allocator counts them: the same thing on every device.
        resident: in the process (CPU), where freed memory that malloc keeps counts too, or
            reserved by torch (CUDA).
    """

    allocated: float
    resident: float


def peak_beyond(step: Callable[[], Any], device: str) -> Peak:
    """The peak of a step, which is taken twice or more."""
    if torch.device(device).type == "cuda":
        return _cuda_peak(step)
    _RESET.write_text("5")  # see proc(5): the peak becomes what is resident now
    before = _status("VmRSS")
    step()
    step()
    return Peak(_allocated(step), float(_status("VmHWM") - before))


def _cuda_peak(step: Callable[[], Any]) -> Peak:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    step()
    step()
    torch.cuda.synchronize()
    after = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return Peak(float(after[0] - before[0]), float(after[1] - before[1]))


def _allocated(step: Callable[[], Any]) -> float:
    """The largest sum of what is allocated and not yet freed, on a CPU."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return float(max(accumulate((event.nbytes() for event in events), initial=0)))


def _status(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
