"""The demo's progress on the screen: bars on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from .pool import Job, Show

_EVERY = 10.0  # seconds between two lines
_WHOLE = "whole demo"


@contextmanager
def screen(jobs: Sequence[Job], console: Console | None = None) -> Iterator[Show]:
    """What brings the screen up to date, as `run_jobs` calls it."""
    console = console or Console()
    remaining = TimeRemainingColumn()
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30)),
        *(TextColumn("{task.fields[text]}"), remaining),
    )
    costs = {job.name: job.cost for job in jobs}
    shares: dict[str, float] = {}
    said: dict[str, str] = {}  # by the jobs that run
    last = -_EVERY
    with Progress(
        *columns, console=console, disable=not console.is_terminal, speed_estimate_period=120
    ) as bars:
        whole = bars.add_task(_WHOLE, total=sum(costs.values()), text="")
        tasks = {name: bars.add_task(name, total=1.0, text="", visible=False) for name in costs}

        def show(name: str, share: float, text: str) -> None:
            nonlocal last
            shares[name], said[name] = share, f"{name}: {text}"
            done = sum(costs[job] * share for job, share in shares.items())
            percent = f"{100 * done / sum(costs.values()):.0f} %"
            bars.update(tasks[name], completed=share, text=text, visible=True)
            bars.update(whole, completed=done, text=percent)
            if not console.is_terminal and time.monotonic() - last >= _EVERY:
                last = time.monotonic()
                left = remaining.render(bars.tasks[whole]).plain
                line = f"{percent}, {left} left  {'; '.join(said.values())}"
                console.print(line, highlight=False, soft_wrap=True)
            if share == 1.0:
                del said[name]

        yield show
