"""Runs killed again and again, at any moment and in the middle of a save, on one rank and on two.

Nothing is lost: the end is that of the uninterrupted run to the bit, and so is every logged line.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.grids import grid
from tests.invariants.kill_worker import Kill, train
from tests.processes import WAIT, run_ranks, start_ranks

MINUTE = 60
# Ranks, and what checkpoints are under FSDP2; without it, ranks are DDP's.
ENGINES = {
    "one rank": (1, None),
    "DDP": (2, None),
    "FSDP2, whole": (2, "FULL_STATE_DICT"),
    "FSDP2, in shards": (2, "SHARDED_STATE_DICT"),
}
CASES = [(m, e, k) for m in ("pgpo", "iga") for e in ENGINES for k in (2, 20)]
QUICK = [("pgpo", "DDP", 2)]
# What differs from run to run.
TIMES = ("train_runtime", "_per_second", "step_time")


def _draw(draw: random.Random, ranks: int) -> Kill:
    rank = draw.randrange(ranks)
    kind = draw.choice(("time", "file", "within a file"))
    if kind == "time":
        return Kill(rank, draw.uniform(0.001, 1.5))
    seconds = 0.0 if kind == "file" else draw.uniform(0.0001, 0.02)
    return Kill(rank, seconds, draw.randint(1, 60 if rank == 0 else 12))


def _live(engine: str, method: str, model: str, folder: Path, kill: Kill, alone: bool) -> bool:
    """One life; whether it was killed. Where one rank dies alone, the others end by themselves."""
    ranks, kind = ENGINES[engine]
    processes = start_ranks(ranks, train, method, model, folder, kill, kind)
    victim = processes[kill.rank]
    victim.join(WAIT)
    if not alone:
        for process in processes:
            process.kill()
    began = time.monotonic()
    for process in processes:
        process.join(MINUTE)
    left = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for process in processes:
        process.kill()
        process.join(WAIT)
    assert not left, f"ranks {left} still ran {time.monotonic() - began:.0f} s after {kill}"
    assert victim.exitcode in (0, -9, -14), victim.exitcode
    return bool(victim.exitcode != 0)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Logged lines without the run's last, which is about time."""
    lines = map(json.loads, path.read_text().splitlines())
    return [
        {name: value for name, value in line.items() if not name.endswith(TIMES)}
        for line in lines
        if "train_runtime" not in line
    ]


def _assert_equal(whole: Path, broken: Path) -> None:
    expected, found = (load_file(folder / "final.safetensors") for folder in (whole, broken))
    assert expected.keys() == found.keys()
    for key, weight in expected.items():
        assert torch.equal(found[key], weight), key
    lines = _lines(broken / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 17))
    assert lines == _lines(whole / "metrics.jsonl")


@pytest.mark.parametrize(("method", "engine", "kills"), grid(CASES, QUICK))
def test_a_run_that_is_killed_again_and_again_equals_the_uninterrupted_one(
    method: str, engine: str, kills: int, tmp_path: Path, tiny_model_path: str
) -> None:
    draw = random.Random(f"{method} {engine}")
    ranks, kind = ENGINES[engine]
    whole = tmp_path / "whole"
    run_ranks(ranks, train, method, tiny_model_path, whole, None, kind)
    killed, runs = 0, 0
    while killed < kills:
        broken = tmp_path / f"broken-{runs}"
        runs += 1
        while killed < kills:
            kill = _draw(draw, ranks)
            if not _live(engine, method, tiny_model_path, broken, kill, draw.random() < 0.5):
                break  # it came to its end before
            killed += 1
        else:
            run_ranks(ranks, train, method, tiny_model_path, broken, None, kind)
        _assert_equal(whole, broken)
        notes = broken.with_suffix(".kills")
        print(f"{broken.name}: {notes.read_text() if notes.is_file() else 'no kill'}")
