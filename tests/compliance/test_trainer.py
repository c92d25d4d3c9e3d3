"""Every method in the trainer's loop: it logs, saves its state, and resumes to the bit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from poise import IGATrainer
from tests.compliance.methods import METHODS
from tests.grids import grid
from tests.invariants.iga_worker import make_trainer
from tests.tiny import DOMAINS

# Two micro-batches a step; the fourth step's checkpoint holds figures that are not logged yet.
RUN: dict[str, Any] = {
    "per_device_train_batch_size": 6,
    "gradient_accumulation_steps": 2,
    "max_steps": 6,
    "logging_steps": 3,
    "save_strategy": "steps",
    "save_steps": 4,
}
FIGURES = {
    "irm": {"iga/penalty"},
    "vrex": {"iga/penalty"},
    "fishr": {"iga/penalty"},
    "group_dro": {f"iga/weight/{domain}" for domain in DOMAINS},
    "and_mask": {"iga/mask_mean"},
    "sand_mask": {"iga/mask_mean"},
    "pcgrad": {"iga/conflicts"},
}


def _run(model: str, folder: Path, name: str, resume: bool = False) -> IGATrainer:
    trainer = make_trainer(model, str(folder), **RUN | METHODS[name].settings)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model(str(folder))
    return trainer


def _logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    for line in logged:
        line.pop("loss")  # the host forgets its running sum
    return logged


QUICK = ["iga, weight, projected", "group_dro"]


@pytest.mark.parametrize("name", grid(METHODS, QUICK))
def test_a_resumed_run_equals_an_uninterrupted_one(
    name: str, tmp_path: Path, tiny_model_path: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    _run(tiny_model_path, whole, name)
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoint-6")
    _run(tiny_model_path, cut, name, resume=True)
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (whole, cut)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(w, weights[1][n]) for n, w in weights[0].items())
    logs = [_logged(folder) for folder in (whole, cut)]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == [3, 6]
    own = {f"iga/loss/{domain}" for domain in DOMAINS} | FIGURES.get(name, set())
    for line in logs[0]:
        assert own <= line.keys()
        assert all(math.isfinite(line[figure]) for figure in own)
    card = (whole / "README.md").read_text()
    assert ("2606.05025" in card) is name.startswith("iga")


@pytest.mark.parametrize("name", grid(METHODS, ["iga, factor"]))
def test_bfloat16_and_activation_checkpointing_learn(
    name: str, tmp_path: Path, tiny_model_path: str
) -> None:
    mixed = {"bf16": True, "gradient_checkpointing": True, "max_steps": 8, "logging_steps": 1}
    trainer = make_trainer(tiny_model_path, str(tmp_path / "run"), **METHODS[name].settings | mixed)
    trainer.train()
    first, *_, last = _logged(tmp_path / "run")
    means = [sum(line[f"iga/loss/{domain}"] for domain in DOMAINS) for line in (first, last)]
    assert means[1] < means[0]


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path, tiny_model_path: str) -> None:
    _run(tiny_model_path, tmp_path / "run", "erm")
    with pytest.raises(ValueError, match="with iga_method erm, this run has iga_method vrex"):
        _run(tiny_model_path, tmp_path / "run", "vrex", resume=True)
