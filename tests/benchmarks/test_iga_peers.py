"""The benchmarks of IGA's step: every side ends in the same gradient, and one object is printed."""

from __future__ import annotations

import importlib.util
import json
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

import iga_peers
import iga_step
from poise.iga.adapters import find_adapters


@pytest.fixture
def small(model: str) -> list[str]:
    return f"--model {model} --device cpu --tokens 64 --rounds 1 --no-memory --json".split()


def _gradient(side: str, setting: dict[str, Any], domains: int = 3) -> Tensor:
    work, step = iga_peers.workload(side, domains, setting)
    factors = [p for adapter in find_adapters(work.model) for p in adapter.parameters]
    work.model.float()
    assert work.timed(step) > 0
    return torch.cat([factor.grad.flatten() for factor in factors if factor.grad is not None])


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop:UserWarning",  # vmap over attention
    "ignore:Full backward hook is firing:UserWarning",  # Opacus's, on the first layer
)
@pytest.mark.parametrize("side", ["torchjd", "torchjd_serial", "opacus"])
def test_a_peers_gradient_is_the_engines(
    side: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(iga_peers.PACKAGES[side])
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    setting = {"tokens": 64, "rank": 2, "model": model, "device": "cpu", "dtype": "float32"}
    expected = _gradient("factor", setting)
    plain = _gradient("plain", setting)
    assert (plain - expected).norm() > 0.1 * expected.norm()
    assert (_gradient(side, setting) - expected).norm() < 1e-4 * expected.norm()


def test_json_is_one_object_of_ratios_with_growth(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    sides = ["factor", "torchjd_serial"]
    iga_peers.main([*small, "--domains", "4", "2", "--ranks", "2", "3", "--sides", *sides])
    report = json.loads(capfd.readouterr().out)
    times = {f"{side}_time" for side in sides}
    assert set(report) == times | {"spread"} | {
        f"{key}_by_{what}" for key in times for what in ("k", "rank")
    }
    for key in times:
        by_k, by_rank = report[f"{key}_by_k"], report[f"{key}_by_rank"]
        assert by_k.keys() == {"4", "2"} and by_rank.keys() == {"2", "3"}
        assert report[key] == by_k["4"] == by_rank["2"] > 0
        assert report["spread"][key] == [report[key]] * 2


def test_memory_is_a_ratio_to_the_plain_step(model: str) -> None:
    setting = {"tokens": 64, "rank": 2, "model": model, "device": "cpu", "dtype": "float32"}
    if not iga_peers.can_measure_memory("cpu"):
        pytest.skip("memory is read from /proc")
    found = iga_peers.Measured(
        {"plain": [1.0], "factor": [2.0]},
        {
            side: iga_peers.in_own_process(iga_peers.memory_of, side, 2, setting)
            for side in ("plain", "factor")
        },
    )
    assert found.ratios()["factor_time"] == 2.0
    assert found.ratios()["factor_memory"] > 0


def test_a_peer_that_is_not_installed_is_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert iga_peers.available(["factor", "opacus"]) == ["plain", "factor"]
    assert "opacus is left out: no package opacus" in capsys.readouterr().err


def test_the_step_of_iga_prints_one_object_of_ratios(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    iga_step.main([*small, "--domains", "4", "2", "--rank", "2"])
    report = json.loads(capfd.readouterr().out)
    by_k, _ = (report.pop(f"{side}_time_by_k") for side in ("weight", "direction"))
    assert report.pop("weight_memory_by_k") == report.pop("direction_memory_by_k") == {}
    spread, quickest = report.pop("spread"), report.pop("quickest")
    sides = {"weight_time", "factor_time", "direction_time", "reference_time"}
    assert set(report) == set(spread) == set(quickest) == sides
    assert all(low <= report[key] <= high for key, (low, high) in spread.items())
    assert by_k["4"] == report["weight_time"]
    assert min(*report.values(), *by_k.values()) > 0
