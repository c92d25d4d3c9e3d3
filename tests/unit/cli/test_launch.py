"""Several processes: as many as are asked for, or a clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from poise.cli import launch


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What accelerate's launcher would get."""
    found: list[Any] = []
    monkeypatch.setattr(launch, "launch_command", found.append)
    return found


def test_two_processes_are_started_on_the_cpu(tmp_path: Path) -> None:
    flags = ["--num_processes", "2", "--main_process_port", "0"]
    assert launch.launch("tests.unit.cli.rank_worker", flags, [str(tmp_path)], is_on_cpu=True) == 0
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == {"0": "2 --use_cpu true", "1": "2 --use_cpu true"}


def test_accelerates_own_flag_for_cpus_starts_several_too(launched: list[Any]) -> None:
    assert launch.launch("m", ["--cpu", "--num_processes", "3"], []) == 0
    assert (launched[0].multi_gpu, launched[0].cpu) == (True, False)
    assert launched[0].training_script_args == ["--use_cpu", "true"]


def test_one_process_is_left_alone(launched: list[Any]) -> None:
    assert launch.launch("m", ["--num_processes", "1"], ["--seed", "1"], is_on_cpu=True) == 0
    assert not launched[0].multi_gpu
    assert launched[0].training_script_args == ["--seed", "1"]


def test_more_processes_than_accelerators_are_refused(
    launched: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"--num_processes: expected at most 2.*found 3"):
        launch.launch("m", ["--num_processes", "3"], [])
    assert launch.launch("m", ["--num_processes", "2"], []) == 0
    assert launch.launch("m", ["--num_processes", "4", "--num_machines", "2"], []) == 0
    assert len(launched) == 2
