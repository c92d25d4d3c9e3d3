"""A study whose figures are a known function of the settings; it can wait, fail and be killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OWN = {"nested", "shift", "power", "fail_at", "killed_at", "log", "wait_for", "together"}
KNOWN = {"method", "seed", "x", *OWN}


def check(config: dict[str, Any]) -> None:
    if unknown := set(config) - KNOWN:
        raise ValueError(f"expected settings of the toy, found {sorted(unknown)}")


def check_data(config: Mapping[str, Any]) -> None:
    if config.get("shift") == "absent":
        raise ValueError("expected data of the toy, found none")


def run(config: dict[str, Any]) -> dict[str, Any]:
    """score = shift + seed / 10 + x, curve = x^power * seed."""
    name = f"{config['method']}-{config.get('x', 0)}-{config['seed']}"
    if "log" in config:
        _log(Path(config["log"]), name, config)
    if config["seed"] == config.get("fail_at"):
        raise RuntimeError("the toy is broken")
    if config["seed"] == config.get("killed_at"):
        os.kill(os.getpid(), signal.SIGKILL)
    config.get("nested", {})["written"] = True
    x = config.get("x", 0)
    figures: dict[str, Any] = {"score": config.get("shift", 0) + config["seed"] / 10 + x}
    if "power" in config:
        figures["curve"] = x ** config["power"] * config["seed"]
    return figures


def _log(folder: Path, name: str, config: dict[str, Any]) -> None:
    """A line a start, the process's number; then wait for a file, or for so many starts."""
    with (folder / f"{name}.started").open("a") as file:
        file.write(f"{os.getpid()}\n")
    until = time.monotonic() + 300
    while time.monotonic() < until:
        started = len(list(folder.glob("*.started")))
        waits = config.get("wait_for") == name and not (folder / "go").exists()
        if not waits and started >= config.get("together", 1):
            return
        time.sleep(0.01)
    raise TimeoutError(f"{name}: nobody came")
