"""Jobs for the demo's processes; nothing heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

from poise.demo.pool import Tell


def write(tell: Tell, *, path: str) -> None:
    print("said by a job")
    tell(0.5, "half way")
    Path(path).write_text("written")


def fail(tell: Tell) -> None:
    raise RuntimeError("no such luck")


def vanish(tell: Tell) -> None:
    os._exit(3)
