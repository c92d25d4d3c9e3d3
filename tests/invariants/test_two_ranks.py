"""Two ranks, each with half of the batch, are one rank with all of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from poise import PGPOConfig, PGPOTrainer
from tests.exact import ROUNDING, apart, in_float64
from tests.grids import grid
from tests.processes import finish, run_ranks
from tests.tiny import BRAKE, EXACT, RUN, tiny_dataset

# Three groups of four rollouts; with two ranks the second group lies on both.
BATCH = 12
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {},
    # Measured on all tokens, since each rank takes its part of its own.
    "distance": {"multiplier": "distance", "distance_share": 1.0},
    "distance, weighed by pass rate": {
        "multiplier": "distance",
        "distance_share": 1.0,
        "pass_rate_weight": True,
    },
    "sampled distance": {
        "multiplier": "distance",
        "distance_share": 1.0,
        "distance_estimator": "sampled",
    },
    "refreshed teacher": {
        "multiplier": "information",
        "teacher_model_kind": "base",
        "teacher_refresh": "once",
        "teacher_refresh_at": 0.5,
    },
    "routed": {"routing": True, "multiplier": "information", "signal_reference": "none"},
}


def by_place(prompts: list[str], **columns: Any) -> list[float]:
    """None to all of a prompt's rollouts succeed, by their place among those of all ranks."""
    start = int(os.environ.get("RANK", 0)) * len(prompts)
    return [float((start + i) % 4 < int(p.split()[1]) % 5) for i, p in enumerate(prompts)]


def _train(ranks: int, model: str, folder: str, case: str) -> None:
    settings = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH // ranks,
        "max_steps": 4,
        "distillation_mode": "full_logits",
        "distillation_alpha": 0.5,
        "sensitivity": 3.0,
        # Ranks draw different random numbers; greedy rollouts and fixed demonstrations need none.
        "generation_kwargs": {
            "do_sample": False,
            "temperature": None,
            "top_k": None,
            "top_p": None,
        },
        "random_demonstration": False,
        **CASES[case],
    }
    with in_float64():
        trainer = PGPOTrainer(
            model=model,
            reward_funcs=by_place,
            args=PGPOConfig(**RUN | BRAKE | EXACT | settings),
            train_dataset=tiny_dataset(),
            peft_config=LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.0)
            if case == "lora"
            else None,
        )
        trainer.train()
    if trainer.is_world_process_zero():
        weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        save_file(weights, f"{folder}/weights.safetensors")


def _run(ranks: int, model: str, folder: Path, case: str) -> tuple[dict[str, torch.Tensor], Any]:
    if ranks == 1:
        finish(_train, 1, model, str(folder), case)
    else:
        run_ranks(ranks, _train, ranks, model, str(folder), case)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return load_file(folder / "weights.safetensors"), lines


@pytest.mark.parametrize("case", grid(CASES, ["distance, weighed by pass rate", "routed"]))
def test_two_ranks_equal_one(case: str, tmp_path: Path, exact_model_path: str) -> None:
    one, one_log = _run(1, exact_model_path, tmp_path / "one", case)
    two, two_log = _run(2, exact_model_path, tmp_path / "two", case)
    assert any(0 < line["pgpo/distilled_fraction"] < 1 for line in one_log[:4])
    for a, b in zip(one_log[:4], two_log[:4], strict=True):
        assert ("pgpo/distance" in a) == ("distance" in case)
        keys = ["pgpo/information_signal", "pgpo/multiplier", "pgpo/distilled_fraction"]
        for key in keys + ["pgpo/distance"] * ("distance" in case):
            assert b[key] == pytest.approx(a[key], rel=ROUNDING, abs=ROUNDING), key
    assert any(abs(line["pgpo/multiplier"] - 1) > 0.01 for line in one_log[:4])
    assert apart(two, one) <= ROUNDING
