"""PGPO's rollouts come from vLLM, which has the student's weights after every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.vllm
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_after_training_vllms_greedy_tokens_are_the_students(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.with_vllm.worker", kind, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    tokens = json.loads((tmp_path / "tokens.json").read_text())
    assert tokens["vllm"] == tokens["student"]
    assert tokens["student"] != tokens["before"]  # else the comparison would say nothing
    # In float32 vLLM's probabilities are the trainer's, so that its rollouts weigh one.
    assert len(tokens["apart"]) == 3
    assert 0 < max(tokens["apart"]) < 1e-5
