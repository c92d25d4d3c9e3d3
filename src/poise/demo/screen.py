"""The demo's progress on the screen: bars on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from .pool import Job, Show

_EVERY = 10.0  # seconds between two lines


@contextmanager
def screen(jobs: Sequence[Job], console: Console | None = None) -> Iterator[Show]:
    """What brings the screen up to date, as `run_jobs` calls it."""
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
