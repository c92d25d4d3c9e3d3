"""Jobs in processes of their own, as many as share the cores well, and a screen that shows them.

A job is a function, called as ``function(tell, **arguments)``; ``tell(share, text)`` says how much
of it is done. What jobs print goes into a log. Their modules, and torch, are imported in their
processes alone, so that there is something to see at once.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from ..threads import usable_cores, use_free_cores

Tell = Callable[[float, str], None]
Show = Callable[[str, float, str], None]  # of a job's name, its share that is done, what it says
_WORKERS = 2  # each holds the model; more would need more memory than small machines have
_PATIENCE = 0.2  # seconds between two looks at what jobs say
_EVERY = 10.0  # seconds between two lines where there is no terminal
_said: Any = None  # in a process of jobs: where they say how far they are


class JobError(ValueError):
    """A job failed; the message says why and where its log is."""


@dataclass(frozen=True)
class Job:
    """A piece of work."""

    name: str  # what the screen calls it
    work: str  # a function, as "module:name"
    arguments: dict[str, Any]  # beside `tell`
    cost: float  # about how many seconds of a core it takes on a small machine


@contextmanager
def screen(jobs: Sequence[Job], console: Console | None = None) -> Iterator[Show]:
    """What brings the screen up to date: bars on a terminal, else a line now and then."""
    console, remaining = console or Console(), TimeRemainingColumn()
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30)),
        *(TextColumn("{task.fields[text]}"), remaining),
    )
    total = sum(job.cost for job in jobs)
    said: dict[str, str] = {}  # by the jobs that run
    last = -_EVERY
    with Progress(
        *columns, console=console, disable=not console.is_terminal, speed_estimate_period=120
    ) as bars:
        whole = bars.add_task("whole demo", total=total, text="")
        tasks = {j.name: bars.add_task(j.name, total=j.cost, text="", visible=False) for j in jobs}

        def show(name: str, share: float, text: str) -> None:
            nonlocal last
            task, said[name] = bars.tasks[tasks[name]], f"{name}: {text}"
            bars.update(task.id, completed=share * (task.total or 0.0), text=text, visible=True)
            done = sum(bars.tasks[one].completed for one in tasks.values())
            percent = f"{100 * done / total:.0f} %"
            bars.update(whole, completed=done, text=percent)
            if not console.is_terminal and time.monotonic() - last >= _EVERY:
                last = time.monotonic()
                left = remaining.render(bars.tasks[whole]).plain
                line = f"{percent}, {left} left  {'; '.join(said.values())}"
                console.print(line, highlight=False, soft_wrap=True)
            if share == 1.0:
                del said[name]

        yield show


def run_jobs(jobs: Sequence[Job], log: Path, show: Show) -> None:
    """Run the jobs, the first ones first.

    Raises:
        JobError: a job failed, or its process was ended.
    """
    context, before = multiprocessing.get_context("spawn"), {*multiprocessing.active_children()}
    workers = min(_WORKERS, usable_cores(), len(jobs))
    use_free_cores(workers)
    said, shares = context.SimpleQueue(), dict[str, float]()
    with ProcessPoolExecutor(workers, context, _begin, (said, str(log))) as pool:
        try:
            left = {pool.submit(_work, job, log) for job in jobs}
            while left:
                done, left = wait(left, _PATIENCE, FIRST_COMPLETED)
                while not said.empty():
                    name, share, text = said.get()
                    shares[name] = share
                    show(name, share, text)
                for future in done:
                    if error := future.exception():
                        raise error
        except BaseException as error:
            for process in {*multiprocessing.active_children()} - before:
                process.terminate()
            if isinstance(error, BrokenProcessPool):
                running = ", ".join(name for name, share in shares.items() if share < 1.0)
                raise JobError(
                    f"a process ended by itself while it did {running}; is there memory left? "
                    f"Its output is in {log}"
                ) from None
            raise


def _begin(said: Any, log: str) -> None:
    """What a process starts with; it ends with its parent."""
    global _said
    _said = said
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    threading.Thread(target=_follow, args=(multiprocessing.parent_process(),), daemon=True).start()


def _follow(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _work(job: Job, log: Path) -> None:
    def tell(share: float, text: str) -> None:
        _said.put((job.name, min(share, 0.999), text))

    try:
        tell(0.0, "starting")
        pkgutil.resolve_name(job.work)(tell, **job.arguments)
    except BaseException as error:
        traceback.print_exc()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise JobError(f"{job.name}: {reason} (output in {log})") from None
    _said.put((job.name, 1.0, "done"))
