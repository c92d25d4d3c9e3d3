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
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..threads import usable_cores, use_free_cores

Tell = Callable[[float, str], None]
Show = Callable[[str, float, str], None]  # of a job's name, its share that is done, what it says
_WORKERS = 2  # each holds the model; more would need more memory than small machines have
_PATIENCE = 0.2  # seconds between two looks at the processes


class JobError(ValueError):
    """A job failed; the message says why and where its log is."""


@dataclass(frozen=True)
class Job:
    """A piece of work."""

    name: str  # what the screen calls it
    work: str  # a function, as "module:name"
    arguments: dict[str, Any]  # beside `tell`
    cost: float  # about how many seconds of a core it takes on a small machine


def run_jobs(jobs: Sequence[Job], log: Path, show: Show) -> None:
    """Run the jobs, the first ones first.

    Raises:
        JobError: a job failed, or its process was ended.
    """
    context = multiprocessing.get_context("spawn")
    workers = min(_WORKERS, usable_cores(), len(jobs))
    use_free_cores(workers)
    waiting, said = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * workers]:
        waiting.put(job)
    processes = [
        context.Process(target=_work, args=(waiting, said, str(log)), daemon=True)
        for _ in range(workers)
    ]
    shares: dict[str, float] = {}
    try:
        for process in processes:
            process.start()
        while sum(shares.values()) < len(jobs):
            try:
                name, share, text = said.get(timeout=_PATIENCE)
            except queue.Empty:
                if any(process.exitcode for process in processes):
                    running = ", ".join(name for name, share in shares.items() if share < 1.0)
                    raise JobError(
                        f"a process ended by itself while it did {running}; is there memory "
                        f"left? Its output is in {log}"
                    ) from None
                continue
            if share is None:
                raise JobError(f"{name}: {text} (output in {log})")
            shares[name] = share
            show(name, share, text)
    finally:
        for process in processes:
            if process.pid is not None:
                if sum(shares.values()) < len(jobs):
                    process.terminate()
                process.join()
        for channel in (waiting, said):
            channel.close()
            channel.join_thread()


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
