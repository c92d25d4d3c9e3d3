"""`poise eval` called in an empty folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.cli.main import main
from poise.evaluate import statistics

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def few() -> list[str]:
    """How many samples, and how short."""
    return ["--k", "4", "--max_new_tokens", "3"]


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    few: list[str],
) -> Call:
    """Runs `poise eval` in an empty folder, with few and short samples, and rough intervals."""
    monkeypatch.setattr(statistics, "RESAMPLES", 199)
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> tuple[int, str, str]:
        sampling = [*few, "--temperature", "1.0", "--device", "cpu"]
        status = main(["eval", *sampling, *map(str, words)])
        return status, *capsys.readouterr()

    return run


def ask(call: Call, *words: str | Path) -> dict[str, Any]:
    """What `poise eval --json` prints."""
    status, out, err = call(*words, "--json")
    assert status == 0, err
    result: dict[str, Any] = json.loads(out)
    return result
