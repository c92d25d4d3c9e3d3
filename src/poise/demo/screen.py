"""The demo's progress on the screen: bars on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from .pool import State

_EVERY = 10.0  # seconds between two lines


@contextmanager
def screen(console: Console | None = None) -> Iterator[Callable[[State], None]]:
    """What brings the screen up to date with a `State`."""
    console = console or Console()
    columns = (
        *(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30)),
        TextColumn("{task.fields[text]}"),
    )
    tasks: dict[str, TaskID] = {}
    last = -_EVERY

    def show_bars(state: State) -> None:
        rows = {name: (share, state.texts[name]) for name, share in state.shares.items()}
        for name, (share, text) in (rows | {"whole demo": (state.share, _summary(state))}).items():
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=1.0, text=text)
            bars.update(tasks[name], completed=share, text=text)

    def show_line(state: State) -> None:
        nonlocal last
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            running = "; ".join(f"{name}: {state.texts[name]}" for name in state.running)
            console.print(f"{_summary(state)}  {running}", highlight=False, soft_wrap=True)

    if console.is_terminal:
        with Progress(*columns, console=console) as bars:
            yield show_bars
    else:
        yield show_line


def _summary(state: State) -> str:
    minutes, seconds = divmod(round(state.seconds_left()), 60)
    return f"{100 * state.share:.0f} %, about {minutes}:{seconds:02d} left"
