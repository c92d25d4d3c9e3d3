"""An IGA run killed at any moment and resumed ends where the uninterrupted one does, to the bit."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.grids import grid
from tests.invariants.iga_worker import run
from tests.processes import WAIT, finish, run_ranks, start

# Three steps are an epoch: checkpoints fall into later ones.
SAVED = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 3, "max_steps": 14}
SETTINGS: dict[str, dict[str, Any]] = {
    "weight space, tau rises, two micro-batches": SAVED
    | {
        "tau_schedule": "linear",
        "tau_warmup_steps": 9,
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 6,
    },
    "direction space": SAVED | {"space": "direction"},
    "direction space, applied to the update": SAVED
    | {"space": "direction", "applied_to": "update"},
    "factor space, applied to the update": SAVED
    | {"space": "factor", "applied_to": "update", "per_device_train_batch_size": 6}
    | {"gradient_accumulation_steps": 2},
    "direction space, four bits": SAVED | {"space": "direction", "four_bits": torch.bfloat16},
    "factor space, by tokens": SAVED | {"space": "factor", "domain_weights": "tokens"},
}


def _kill_after(steps: int, delay: float, *args: Any) -> None:
    process = start(run, *args)
    deadline = time.monotonic() + WAIT
    while process.is_alive() and time.monotonic() < deadline:
        if len(_lines(Path(args[1]) / "metrics.jsonl")) >= steps:
            time.sleep(delay)
            break
        time.sleep(0.005)
    process.kill()  # SIGKILL
    process.join(WAIT)
    assert process.exitcode == -9, "the run ended before it was killed"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _assert_equal(one: Path, other: Path) -> None:
    expected, found = (load_file(folder / "final.safetensors") for folder in (one, other))
    assert expected.keys() == found.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight), key


@pytest.mark.parametrize("name", grid(SETTINGS, ["direction space"]))
def test_a_killed_and_resumed_run_equals_the_uninterrupted_one(
    name: str, tmp_path: Path, tiny_model_path: str
) -> None:
    if "bits" in name:
        pytest.importorskip("bitsandbytes")
    settings, draw = SETTINGS[name], random.Random(name)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    finish(run, tiny_model_path, whole, settings)
    _kill_after(draw.randint(5, 9), draw.uniform(0, 0.05), tiny_model_path, broken, settings)
    finish(run, tiny_model_path, broken, settings, True)
    _assert_equal(Path(whole), Path(broken))
    for file in ("metrics.jsonl", "layers.jsonl"):
        logs = [
            [json.loads(line) for line in _lines(Path(folder) / file)] for folder in (whole, broken)
        ]
        logs = [[line for line in log if "train_runtime" not in line] for log in logs]
        assert [line["step"] for line in logs[0]] == list(range(1, 15))
        assert logs[0] == logs[1]


# Logs come every fifth step, so the checkpoint of step 14 holds figures of steps 11 to 14.
LONGER = SAVED | {"max_steps": 15, "logging_steps": 5}


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(
    tmp_path: Path, tiny_model_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    finished_run, folder = tmp_path / "finished", tmp_path / "run"
    run(tiny_model_path, str(finished_run), LONGER)
    shutil.copytree(finished_run, folder)
    file = folder / "checkpoint-15" / "poise_warm_starts_0.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    run(tiny_model_path, str(folder), LONGER, True)
    assert file.name in caplog.text
    _assert_equal(finished_run, folder)
    last = [_logged_at(15, run_folder) for run_folder in (finished_run, folder)]
    assert last[0] == last[1]
    assert {"iga/loss/law", "iga/mask_mean", "iga/agreement"} <= last[0].keys()
    logs = [_lines(run_folder / "layers.jsonl") for run_folder in (finished_run, folder)]
    assert len(logs[0]) == 3
    assert logs[0] == logs[1]


def _logged_at(step: int, folder: Path) -> dict[str, float]:
    """The figures that a checkpoint keeps until they are logged."""
    lines = [json.loads(line) for line in _lines(folder / "metrics.jsonl")]
    (line,) = [line for line in lines if line["step"] == step and "loss" in line]
    return line


def test_two_ranks_resume_in_a_later_epoch(tmp_path: Path, tiny_model_path: str) -> None:
    settings = SAVED | {"per_device_train_batch_size": 6, "max_steps": 8, "save_total_limit": None}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_ranks(2, run, tiny_model_path, str(whole), settings)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-8")
    shutil.rmtree(cut / "checkpoint-6")  # 4 is within the second epoch of three steps
    (cut / "final.safetensors").unlink()
    run_ranks(2, run, tiny_model_path, str(cut), settings, True)
    _assert_equal(whole, cut)


def test_two_ranks_report_the_mean_loss_of_a_resumed_runs_own_steps(
    tmp_path: Path, tiny_model_path: str
) -> None:
    settings = SAVED | {"per_device_train_batch_size": 6, "max_steps": 4, "logging_steps": 4}
    run_ranks(2, run, tiny_model_path, str(tmp_path), settings)
    shutil.rmtree(tmp_path / "checkpoint-4")
    logs = [tmp_path / "checkpoint-2" / f"poise_log_{rank}.json" for rank in (0, 1)]
    pending = [json.loads(path.read_text()) for path in logs]
    run_ranks(2, run, tiny_model_path, str(tmp_path), settings, True)
    *_, logged, last = map(json.loads, _lines(tmp_path / "metrics.jsonl"))
    assert pending[0]["loss"] != pending[1]["loss"]
    before = (pending[0]["loss"] + pending[1]["loss"]) / 2
    eps = torch.finfo(torch.float32).eps
    total = pytest.approx(logged["loss"] * 4 - before, rel=32 * eps)
    # Of the two steps of its own; older transformers divides by all four.
    assert last["train_loss"] * 2 == total or last["train_loss"] * 4 == total
