"""A run killed at any moment and resumed ends where the uninterrupted one does, to the bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.grids import grid
from tests.invariants.resume_worker import run
from tests.processes import WAIT, finish, start

SETTINGS: dict[str, dict[str, Any]] = {
    "ema": {"teacher_model_kind": "ema"},
    "live": {"teacher_model_kind": "live"},
    "base": {"teacher_model_kind": "base"},
    "base, refreshed": {"teacher_model_kind": "base", "teacher_refresh": "once"},
    "ema, four steps a generation": {"teacher_model_kind": "ema", "steps_per_generation": 4},
    "distance": {"multiplier": "distance", "teacher_model_kind": "base"},
    "distance, bfloat16": {"multiplier": "distance", "teacher_model_kind": "base", "bf16": True},
    "ema, four bits": {"teacher_model_kind": "ema", "four_bits": torch.bfloat16},
    "ema, host's start": {"teacher_model_kind": "ema", "teacher_from_student": False},
}


def _kill_after(steps: int, delay: float, *args: Any) -> None:
    # On a busy machine the kill may come late: the run waits for it two steps on.
    process = start(run, *args, steps + 2)
    metrics = args[1] / "metrics.jsonl"
    deadline = time.monotonic() + WAIT
    while (step := _last_step(metrics)) < steps and time.monotonic() < deadline:
        if not process.is_alive():
            break
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()  # SIGKILL
    process.join(WAIT)
    assert process.exitcode == -signal.SIGKILL, "the run ended by itself"
    assert step >= steps, f"the run was still at step {step} after {WAIT} s"


def _last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except ValueError:  # half a line
        return 0


CASES = [(name, lora) for name in SETTINGS for lora in (False, True) if lora or "bits" not in name]
QUICK = [("ema", True), ("distance", False), ("ema, four steps a generation", False)]


@pytest.mark.parametrize(("name", "lora"), grid(CASES, QUICK))
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(
    name: str, lora: bool, tmp_path: Path, tiny_model_path: str
) -> None:
    if "bits" in name:
        pytest.importorskip("bitsandbytes")
    settings, draw = SETTINGS[name], random.Random(f"{name} {lora}")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(run, tiny_model_path, whole, settings, lora, None)
    # Checkpoints come every second step; the kills fall anywhere between and into them. The first
    # run does not come as far as the second must, whose kill is thus one of a resumed run.
    for steps, resume in ((draw.randint(3, 5), None), (draw.randint(8, 10), True)):
        delay = draw.uniform(0, 0.05)
        _kill_after(steps, delay, tiny_model_path, broken, settings, lora, resume)
    finish(run, tiny_model_path, broken, settings, lora, True)
    expected, found = (load_file(folder / "final.safetensors") for folder in (whole, broken))
    assert expected.keys() == found.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight), key
    lines = (broken / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(steps)
    assert set(range(1, 16)) <= set(steps)


def test_figures_that_are_not_logged_yet_are_kept(tmp_path: Path, tiny_model_path: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = {"max_steps": 5, "logging_steps": 4, "teacher_model_kind": "live"}
    run(tiny_model_path, whole, settings, False, None)
    shutil.copytree(whole, broken)
    for step in (4, 5):
        shutil.rmtree(broken / f"checkpoint-{step}")
    run(tiny_model_path, broken, settings, False, True)  # from step 2
    logs = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (whole, broken)]
    assert logs[0][0] == logs[1][0]
    assert {"loss", "completions/mean_length", "pgpo/multiplier"} <= json.loads(logs[0][0]).keys()


def _truncate(checkpoint: Path) -> str:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return file.name


def _flip_a_bit(checkpoint: Path) -> str:
    file = checkpoint / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file.name


def _leave_unfinished(checkpoint: Path) -> str:
    (checkpoint / "poise_manifest.json").unlink()
    return checkpoint.name


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_model_path: str) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    # In this process too: with more threads than cores another one rounds otherwise.
    run(tiny_model_path, folder, SETTINGS["ema"], False, None)
    return folder


@pytest.mark.parametrize(
    "damage", grid([_truncate, _flip_a_bit, _leave_unfinished], [_leave_unfinished])
)
def test_a_damaged_newest_checkpoint_is_named_and_passed_over(
    damage: Callable[[Path], str],
    finished_run: Path,
    tmp_path: Path,
    tiny_model_path: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    name = damage(folder / "checkpoint-15")
    run(tiny_model_path, folder, SETTINGS["ema"], False, True)
    assert name in caplog.text
    expected = load_file(finished_run / "final.safetensors")
    found = load_file(folder / "final.safetensors")
    assert all(torch.equal(found[key], weight) for key, weight in expected.items())
