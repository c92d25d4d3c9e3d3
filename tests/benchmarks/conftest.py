"""Benchmarks are scripts beside one another: they import each other by plain names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tiny import save_tiny_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model whose vocabulary holds a top 100."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny"), vocab_size=128)
