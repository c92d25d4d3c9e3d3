"""What the tests of `poise isomers build` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.unit.data.isomers.builder.endpoint import KEY, Endpoint

PROBLEMS = 6
DOMAINS = ("law", "sports")


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
