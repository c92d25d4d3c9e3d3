"""Jobs in processes of their own, as many as share the cores well, and how far they are.

A job is a function, called as ``function(tell, **arguments)``; ``tell(share, text)`` says how much
of it is done. What jobs print goes into a log. Their modules, and torch, are imported in their
processes alone, so that there is something to see at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import queue
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..threads import usable_cores, use_free_cores

Tell = Callable[[float, str], None]
_WORKERS = 2  # each holds the model; more would need more memory than small machines have
_PATIENCE = 0.2  # seconds between two looks at the jobs
_TRUST = 20.0  # seconds after which the pace so far counts as much as the expected one


class JobError(ValueError):
    """A job failed; the message says why and where its log is."""


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Args:
        name: What the screen calls it.
        work: A function, as "module:name".
        arguments: Its arguments by name, beside `tell`.
        cost: About how many seconds of a core it takes on a small machine.
    """

    name: str
    work: str
    arguments: dict[str, Any]
    cost: float


@dataclass
class State:
    """How far the jobs are: share and last word of each that has begun."""

    jobs: Sequence[Job]
    workers: int
    started: float = field(default_factory=time.monotonic)
    shares: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds of a core for all of the jobs."""
        return sum(job.cost for job in self.jobs)

    @property
    def share(self) -> float:
        """The whole's share that is done, by cost; 1.0 when every job has ended."""
        return sum(job.cost * self.shares.get(job.name, 0.0) for job in self.jobs) / self.total

    @property
    def running(self) -> list[str]:
        """Names of jobs that have begun and not ended."""
        return [name for name, share in self.shares.items() if share < 1.0]

    def seconds_left(self) -> float:
        """By the pace so far, which counts the more the longer it has been seen."""
        elapsed = time.monotonic() - self.started
        pace = (self.share * self.total + self.workers * _TRUST) / (elapsed + _TRUST)
        return (1.0 - self.share) * self.total / pace


def run_jobs(jobs: Sequence[Job], log: Path, show: Callable[[State], None]) -> None:
    """Run the jobs, the first ones first; `show` is called several times a second.

    Raises:
        JobError: a job failed, or its process was ended.
    """
    context = multiprocessing.get_context("spawn")
    workers = min(_WORKERS, usable_cores(), len(jobs))
    use_free_cores(workers)
    waiting, said = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * workers]:
        waiting.put(job)
    state = State(jobs, workers)
    processes = [
        context.Process(target=_work, args=(waiting, said, str(log)), daemon=True)
        for _ in range(workers)
    ]
    try:
        for process in processes:
            process.start()
        while state.share < 1.0:
            _listen(said, state, processes, log)
            show(state)
    finally:
        for process in processes:
            if process.pid is not None:
                if state.share < 1.0:
                    process.terminate()
                process.join()
        for channel in (waiting, said):
            channel.close()
            channel.join_thread()


def _listen(said: Any, state: State, processes: Sequence[Any], log: Path) -> None:
    try:
        name, share, text = said.get(timeout=_PATIENCE)
    except queue.Empty:
        if any(process.exitcode for process in processes):
            raise JobError(
                f"a process ended by itself while it did {', '.join(state.running)}; is there "
                f"memory left? Its output is in {log}"
            ) from None
        return
    if share is None:
        raise JobError(f"{name}: {text} (output in {log})")
    state.shares[name], state.texts[name] = share, text


def _work(waiting: Any, said: Any, log: str) -> None:
    """A process: does one job after the other until there are none, or its parent is gone."""
    parent = os.getppid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    while (job := waiting.get()) is not None:

        def tell(share: float, text: str, name: str = job.name) -> None:
            if os.getppid() != parent:
                os._exit(1)
            said.put((name, min(share, 0.999), text))

        try:
            tell(0.0, "starting")
            pkgutil.resolve_name(job.work)(tell, **job.arguments)
        except BaseException as error:
            traceback.print_exc()
            said.put((job.name, None, " ".join(str(error).split()) or type(error).__name__))
            return
        said.put((job.name, 1.0, "done"))
