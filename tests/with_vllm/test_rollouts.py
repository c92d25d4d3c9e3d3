"""PGPO's rollouts come from vLLM, which has the student's weights after every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def found(kind: str, folder: Path) -> Any:
    """What the worker found."""
    command = [sys.executable, "-m", "tests.with_vllm.worker", kind, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "found.json").read_text())


def check_apart(apart: list[float], steps: int = 3) -> None:
    """In float32 vLLM's probabilities are the trainer's, so that its rollouts weigh one."""
    assert len(apart) == steps
    assert 0 < max(apart) < 1e-5


@pytest.mark.vllm
@pytest.mark.parametrize("kind", ["full", "lora", "embedded"])
def test_after_training_vllms_greedy_tokens_are_the_students(kind: str, tmp_path: Path) -> None:
    tokens = found(kind, tmp_path)
    assert tokens["vllm"] == tokens["student"]
    assert tokens["student"] != tokens["before"]  # else the comparison would say nothing
    check_apart(tokens["apart"], steps=2 if kind == "embedded" else 3)


@pytest.mark.vllm
def test_a_servers_rollouts_are_the_policys(tmp_path: Path) -> None:
    """As far as a CPU goes: weights of later steps are handed to a server by NCCL alone."""
    check_apart(found("server", tmp_path)["apart"])
