"""The count of kernels and bytes is right, and no side waits once a layer."""

from __future__ import annotations

import json

import pytest
import torch

import operations


def test_operators_that_move_nothing_are_no_kernels() -> None:
    a, b = torch.ones(4, 8), torch.ones(4, 8)
    with operations.Kernels() as kernels:
        a.t()[1:].unsqueeze(0)
        torch.empty(100)
        (a + b).mul_(2.0)
    size = 4 * 8 * 4
    assert kernels.count == 2
    assert kernels.bytes == 3 * size + 2 * size


def test_no_side_waits_once_a_layer(capfd: pytest.CaptureFixture[str]) -> None:
    operations.main(["--hidden", "64", "--domains", "2", "--tokens", "64", "--rank", "2", "--json"])
    report = json.loads(capfd.readouterr().out)
    assert set(report) == set(operations.SIDES)
    for figures in report.values():
        assert figures["waits a layer"] == 0
        assert figures["kernels a layer"] >= report["plain"]["kernels a layer"] > 0
