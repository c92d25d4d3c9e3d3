"""A teacher that answers, a folder with problems, and `poise isomers build` called in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poise.cli.main import main
from tests.unit.isomers.build.endpoint import KEY, Endpoint, running_endpoint, source_row

PROBLEMS = 6
DOMAINS = ("law", "sports")
Call = Callable[..., tuple[int, str, str]]


def write(folder: Path, *rows: dict[str, Any], name: str = "problems.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(endpoint: Endpoint) -> list[str]:
    return [
        "isomers", "build", "--problems", "problems.jsonl", "--output", "out/isomers.jsonl",
        "--teacher", "endpoint:m", "--base_url", endpoint.url, "--domains", *DOMAINS,
    ]  # fmt: skip


def lines(folder: Path, what: str = "") -> list[dict[str, Any]]:
    path = folder / "out" / f"isomers{what}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def secrets_in(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with problems, and the key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(tmp_path, *map(source_row, range(PROBLEMS)))
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], endpoint: Endpoint, folder: Path) -> Call:
    def run(*more: str) -> tuple[int, str, str]:
        return main([*words(endpoint), *more]), *capsys.readouterr()

    return run
