"""One JSON line a logged step; a resumed run goes on where its checkpoint ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from poise.trl.logs import METRICS, MetricsLog


class Run:
    """Calls the callback as a trainer does."""

    def __init__(self, folder: Path, *, step: int = 0, is_main: bool = True) -> None:
        self.args = TrainingArguments(str(folder), report_to="none", use_cpu=True)
        self.state = TrainerState(global_step=step, is_world_process_zero=is_main)
        self.log = MetricsLog()
        self.log.on_train_begin(self.args, self.state, TrainerControl())

    def log_step(self, step: int, **logs: Any) -> None:
        self.state.global_step = step
        self.log.on_log(self.args, self.state, TrainerControl(), logs=logs, model=None)


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_each_log_is_a_line_with_its_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log_step(1, loss=0.5, reward=1.0)
    run.log_step(1, eval_loss=0.7)
    run.log_step(2, loss=0.25)
    assert _lines(tmp_path) == [
        {"step": 1, "loss": 0.5, "reward": 1.0},
        {"step": 1, "eval_loss": 0.7},
        {"step": 2, "loss": 0.25},
    ]


def test_a_resumed_run_drops_the_lines_after_its_checkpoint(tmp_path: Path) -> None:
    Run(tmp_path).log_step(9, loss=9.0)
    run = Run(tmp_path)  # a fresh run begins an empty log
    for step in range(1, 6):
        run.log_step(step, loss=step / 10)
    run = Run(tmp_path, step=3)
    assert [line["step"] for line in _lines(tmp_path)] == [1, 2, 3]
    run.log_step(4, loss=7.0)
    assert _lines(tmp_path)[2:] == [{"step": 3, "loss": 0.3}, {"step": 4, "loss": 7.0}]
    assert [path.name for path in tmp_path.iterdir()] == [METRICS]


@pytest.mark.parametrize("rest", ['{"step": 3, "los', "{"])
def test_a_half_written_last_line_is_dropped(tmp_path: Path, rest: str) -> None:
    run = Run(tmp_path)
    run.log_step(1, loss=0.1)
    run.log_step(2, loss=0.2)
    with (tmp_path / METRICS).open("a") as file:
        file.write(rest)
    Run(tmp_path, step=3).log_step(4, loss=0.4)
    assert _lines(tmp_path) == [
        {"step": 1, "loss": 0.1},
        {"step": 2, "loss": 0.2},
        {"step": 4, "loss": 0.4},
    ]


def test_figures_that_are_not_numbers_come_through_a_resume(tmp_path: Path) -> None:
    Run(tmp_path).log_step(1, signal=math.nan)
    Run(tmp_path, step=1)
    (line,) = _lines(tmp_path)
    assert math.isnan(line["signal"])


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    Run(tmp_path / "run", is_main=False).log_step(1, loss=0.5)
    assert not (tmp_path / "run" / METRICS).exists()
