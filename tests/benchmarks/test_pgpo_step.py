"""The benchmark of PGPO's step: both trainers do the same work, and one object is printed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import pgpo_step
import sdpo_side

BESIDE_TRL = {"vs_trl_jsd_time", "vs_trl_topk_time", "full_vs_trl_topk_time"}
TIMES = BESIDE_TRL | {"multiplier_time", "distance_time", "measuring_time"}
MEMORY = {key.replace("time", what) for key in BESIDE_TRL for what in ("memory", "resident")}


@pytest.fixture
def small(model: str) -> list[str]:
    return f"--model {model} --device cpu --tokens 32 --prompt 4 --rounds 1 --json".split()


def _is_ratio(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def test_json_is_one_object_of_ratios(small: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    pgpo_step.main(small)
    report = json.loads(capfd.readouterr().out)
    spread = report.pop("spread")
    assert set(report) == TIMES | MEMORY
    assert all(_is_ratio(value) for value in report.values())
    assert set(spread) == TIMES
    # One round: its ratio is the median's.
    assert all(low == report[key] == high for key, (low, high) in spread.items())


def test_growth_repeats_the_ratios_at_other_tokens_and_vocabularies(
    small: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    grown = ["--no-memory", "--growth", "--growth-tokens", "16", "--growth-vocabulary", "160"]
    pgpo_step.main([*small, *grown])
    report = json.loads(capfd.readouterr().out)
    assert set(report) == TIMES | {"spread"} | {
        f"{key}_by_{what}" for key in TIMES for what in ("tokens", "vocabulary")
    }
    assert set(report["vs_trl_jsd_time_by_tokens"]) == {"16"}
    assert set(report["vs_trl_jsd_time_by_vocabulary"]) == {"160"}
    assert all(map(_is_ratio, report["multiplier_time_by_vocabulary"].values()))


@pytest.mark.parametrize("mode", sdpo_side.MODES)
def test_both_trainers_have_the_same_loss_on_the_batch(
    mode: str, model: str, tmp_path: Path
) -> None:
    losses = []
    for host in ("poise", "trl"):
        setting = sdpo_side.Setting(model, "cpu", tokens=32, sequences=4, prompt=4)
        side = sdpo_side.Side(f"{host}_{mode}", setting, str(tmp_path))
        assert side.trainer._prepare_training_batch([])["completion_ids"].shape == (4, 8)
        assert side.step() > 0
        losses.append(side.trainer.state.log_history[-1]["train_loss"])
    assert losses[0] > 0
    assert losses[0] == pytest.approx(losses[1], rel=0.03)  # bfloat16


def test_a_step_has_the_multiplier_that_was_asked_for(model: str, tmp_path: Path) -> None:
    setting = sdpo_side.Setting(model, "cpu", tokens=16, sequences=2, prompt=4, vocabulary=160)
    side = sdpo_side.Side("poise_jsd", setting, str(tmp_path))
    multipliers = []
    for multiplier in ("information", "none", "distance"):
        assert side.step(multiplier) > 0
        multipliers.append(side.trainer.step_scale.last.multiplier)
    assert multipliers[0] != 1.0
    assert multipliers[1] == 1.0
    assert multipliers[2] != 1.0
    assert side.trainer.model.get_output_embeddings().weight.shape == torch.Size([160, 32])


@pytest.mark.parametrize(("option", "least"), [("tokens", 1), ("sequences", 2), ("rounds", 1)])
def test_a_size_that_is_too_small_is_refused(
    option: str, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        pgpo_step.main([f"--{option}", str(least - 1)])
    assert f"--{option} must be at least {least}, found {least - 1}" in capsys.readouterr().err
