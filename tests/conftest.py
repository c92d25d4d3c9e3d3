"""Shared fixtures. Nothing here or in any test reaches a network."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Set before torch is imported, and inherited by the processes that tests start: one thread in each,
# since the suite itself runs in one process a core.
os.environ.setdefault("POISE_TEST_THREADS", "1")
os.environ["OMP_NUM_THREADS"] = os.environ["POISE_TEST_THREADS"]
# Over several GPUs the host would spread a batch, which is another test.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings

from tests.exact import in_float64
from tests.tiny import BRAKE, EXACT, IGA_RUN, RUN, iga_run, save_tiny_model

# No deadline: a test that asserts a time fails on a busy machine.
settings.register_profile("poise", deadline=None, max_examples=40)
settings.load_profile("poise")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


ROOT = Path(__file__).parents[1]
# Finished studies, the tables of all experiments to the letter, and whole runs of benchmarks; other
# tests are marked singly.
SLOW = (
    "tests/benchmarks/test_iga_peers.py",
    "tests/benchmarks/test_pgpo_step.py",
    "tests/docs/test_experiments.py",
    "tests/unit/lab/studies/",
)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Marks what is slow by its place, and what runs on every device by its fixture."""
    for item in items:
        if "device" in getattr(item, "fixturenames", ()):
            item.add_marker("device")
        if item.path.relative_to(ROOT).as_posix().startswith(SLOW):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Every training ends with a collection of garbage, which need not go through the libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that there is: the CPU, and a GPU of CUDA."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the tiny model, shared by all tests: read it, do not write to it."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def exact_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in float64."""
    return save_tiny_model(tmp_path_factory.mktemp("exact-model"), dtype=torch.float64)


@pytest.fixture
def float64() -> Iterator[None]:
    """The test, and what it trains from `exact_model_path`, is in float64."""
    with in_float64():
        yield


def _settings(request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    """On the test's device, or the CPU if it names none; in float64 where the test is."""
    names = request.fixturenames
    on_cpu = "device" not in names or request.getfixturevalue("device").type == "cpu"
    own = {"output_dir": str(folder / "run"), "max_steps": 3, "seed": 3, "use_cpu": on_cpu}
    return own | (EXACT if "float64" in names else {})


@pytest.fixture
def make_config(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds a `PGPOConfig` for the tiny model; keyword arguments override."""
    from poise import PGPOConfig

    own = _settings(request, tmp_path)

    def make(cls: Any = PGPOConfig, **overrides: Any) -> Any:
        return cls(**RUN | (BRAKE if issubclass(cls, PGPOConfig) else {}) | own | overrides)

    return make


@pytest.fixture
def make_iga_config(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Builds an `IGAConfig` for the tiny model; keyword arguments override."""
    from poise import IGAConfig

    own = _settings(request, tmp_path)

    def make(cls: Any = IGAConfig, **overrides: Any) -> Any:
        settings = own | overrides
        return cls(**(iga_run(settings) if issubclass(cls, IGAConfig) else IGA_RUN | settings))

    return make
