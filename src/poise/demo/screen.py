"""The demo's progress on the screen: bars on a terminal, else a line now and then."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from .pool import State

_WHOLE = "whole demo"
_EVERY = 10.0  # seconds between two lines


class Screen:
    """Shows a `State`; to be used as a context."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}"),
            console=self._console,
        )
        self._tasks: dict[str, Any] = {}
        self._last = -_EVERY

    def __enter__(self) -> Screen:
        self._shown().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._shown().__exit__(*error)

    def _shown(self) -> AbstractContextManager[Any]:
        return self._bars if self._console.is_terminal else nullcontext()

    def show(self, state: State) -> None:
        """Bring the screen up to date."""
        if self._console.is_terminal:
            for name, share in state.shares.items():
                self._bar(name, share, state.texts[name])
            self._bar(_WHOLE, state.share, _summary(state))
        elif time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            running = "; ".join(f"{name}: {state.texts[name]}" for name in state.running)
            self._console.print(f"{_summary(state)}  {running}", highlight=False, soft_wrap=True)

    def _bar(self, name: str, share: float, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=1.0, text=text)
        self._bars.update(self._tasks[name], completed=share, text=text)


def _summary(state: State) -> str:
    minutes, seconds = divmod(round(state.seconds_left()), 60)
    return f"{100 * state.share:.0f} %, about {minutes}:{seconds:02d} left"
