"""Tests with vLLM run where it is installed and they are asked for: `pytest -m vllm`."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vllm: needs vLLM; runs when it is asked for by this name")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm") is None:
        return
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: `uvx nox -s vllm` makes an environment with it")
    if "vllm" not in item.config.option.markexpr:
        pytest.skip("loads vLLM in processes of its own; ask for it by `pytest -m vllm`")
