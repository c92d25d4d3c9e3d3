"""How many threads products may take, from the cores that nobody else is using.

Needs no torch: libraries read their number of threads once, when they are loaded.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

NUMBER, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
_WATCHED = 0.25  # seconds
_CGROUP = Path("/sys/fs/cgroup")
_chosen: str | None = None  # what we have written there


def use_free_cores(processes: int = 1) -> None:
    """Say in the environment how many threads a process started from here may take.

    What the user has said there stays. Threads that wait are put to sleep: GNU OpenMP's spin, and
    where another process holds a core, a product then waits for a thread that is not running.

    Args:
        processes: That will work side by side.
    """
    global _chosen
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault(WAITING, "PASSIVE")
    if os.environ.get(NUMBER) not in (None, _chosen):
        return
    threads = max(1, free_cores() // processes)
    if threads < (os.cpu_count() or 1):
        os.environ[NUMBER] = _chosen = str(threads)


@cache
def free_cores() -> int:
    """Cores that this process may use and others leave idle right now, at least one.

    Where the system does not tell who is busy, all that it may use.
    """
    allowed = _allowed_cores()
    try:
        import psutil  # type: ignore[import-untyped]  # accelerate brings it

        busy = psutil.cpu_percent(_WATCHED, percpu=True)  # of the cores that are switched on
    except (ImportError, OSError):
        busy = []
    if max(allowed) < len(busy):
        busy = [busy[core] for core in allowed]
    idle = 1 - sum(busy) / 100 / len(busy) if busy else 1.0
    return _within_quota(round(len(allowed) * idle))


def usable_cores() -> int:
    """Cores that this process may use, whoever else does, at least one."""
    return _within_quota(len(_allowed_cores()))


def _allowed_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _within_quota(cores: int) -> int:
    """No more than the control group's share of processor time."""
    for file in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            quota, *period = (_CGROUP / file).read_text().split()
            if not period:
                period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text().split()
            if quota not in ("max", "-1"):
                cores = min(cores, int(quota) // int(period[0]))
        except (OSError, ValueError, IndexError):
            continue
    return max(1, cores)
