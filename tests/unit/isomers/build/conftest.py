"""A running endpoint, and a build that asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .builds import Build
from .endpoint import Endpoint, running_endpoint, source_row


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as found:
        yield found


@pytest.fixture
def problems_path(tmp_path: Path) -> Path:
    """Three problems."""
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(source_row(n)) + "\n" for n in range(3)))
    return path


@pytest.fixture
def build(endpoint: Endpoint, problems_path: Path) -> Build:
    return Build(endpoint, problems_path)
