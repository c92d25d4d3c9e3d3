"""Shared fixtures. Nothing here or in any test reaches a network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# For the processes that tests start; the suite itself runs in one process a core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.tiny import IGA_RUN, RUN, save_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model, shared by all tests: read it, do not write to it."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Any]:
    """Builds a `PGPOConfig` for the tiny model; keyword arguments override."""
    from poise.training import PGPOConfig

    def make(cls: Any = PGPOConfig, **overrides: Any) -> Any:
        own = {"output_dir": str(tmp_path / "run"), "max_steps": 3, "seed": 3}
        return cls(**RUN | own | overrides)

    return make


@pytest.fixture
def make_iga_config(tmp_path: Path) -> Callable[..., Any]:
    """Builds an `IGAConfig` for the tiny model; keyword arguments override."""
    from poise.training import IGAConfig

    def make(cls: Any = IGAConfig, **overrides: Any) -> Any:
        own = {"output_dir": str(tmp_path / "run"), "max_steps": 3, "seed": 3}
        return cls(**IGA_RUN | own | overrides)

    return make
