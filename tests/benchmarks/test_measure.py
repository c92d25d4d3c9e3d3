"""What the benchmarks share measures what it says."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

import measure

MIB = 2**20
on_linux = pytest.mark.skipif(
    not measure.can_measure_memory("cpu"), reason="memory is read from /proc"
)


def test_a_ratio_is_that_of_medians_and_its_spread_that_of_the_rounds() -> None:
    found = measure.ratio({"a": [2.0, 3.0, 10.0], "b": [1.0, 2.0, 4.0]}, "a", "b")
    assert found == measure.Ratio(middle=1.5, low=1.5, high=2.5)


def test_sides_run_in_turns_and_neither_the_first_round_nor_a_cold_sides_counts() -> None:
    calls: list[str] = []

    def side(name: str) -> Callable[[], float]:
        def step() -> float:
            calls.append(name)
            return float(len(calls))

        return step

    steps = {name: side(name) for name in "abc"}
    seconds = measure.in_turns(steps, rounds=2, label="", cold=["c"])
    assert calls == ["b", "a", "a", "b", "c", "c", "b", "a"]
    assert seconds == {"a": [3.0, 8.0], "b": [4.0, 7.0], "c": [5.0, 6.0]}


@on_linux
def test_a_peak_is_the_steps_own_whatever_came_before_it() -> None:
    def fill(mebibytes: int) -> None:
        for _ in range(3):  # one at a time
            assert torch.ones(mebibytes, MIB, dtype=torch.uint8).all()

    fill(256)
    found = measure.peak_beyond(lambda: fill(64), "cpu")
    assert 64 * MIB <= found.allocated < 65 * MIB
    assert 60 * MIB < found.resident < 80 * MIB


def test_a_function_runs_in_a_process_of_its_own() -> None:
    assert measure.in_own_process(os.getpid) != os.getpid()
