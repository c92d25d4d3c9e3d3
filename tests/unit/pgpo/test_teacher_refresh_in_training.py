"""Runs whose teacher stands still until the student takes its place."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from poise import PGPOTrainer
from tests.tiny import tiny_dataset, vowel_reward

STEPS, REFRESH = 6, 4
# Rewards rise with the third step: two windows of two are then apart.
RULES: dict[str, dict[str, Any]] = {
    "once": {"teacher_refresh": "once", "teacher_refresh_at": REFRESH / STEPS},
    "gated": {"teacher_refresh": "gated", "teacher_refresh_window": 2},
}
Weights = dict[str, Tensor]


def rises(completions: list[str], trainer_state: Any, **columns: Any) -> list[float]:
    """Successes, of which there are as many in every step, and a sum that rises with step 3."""
    step = trainer_state.global_step
    return [float(i % 2) + 3 * (step >= 2) + 0.001 * (step % 2) for i in range(len(completions))]


class Seen(TrainerCallback):  # type: ignore[misc]
    """Student and teacher after every step."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.students: dict[int, Weights] = {}
        self.teachers: dict[int, Weights] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.students[state.global_step] = {
            name.replace(".default", ".teacher"): param.detach().clone()
            for name, param in self.trainer.model.named_parameters()
            if param.requires_grad
        }
        if self.trainer.teacher is not None:
            self.teachers[state.global_step] = self.trainer.teacher.state_dict()


Run = Callable[..., tuple[PGPOTrainer, Seen]]


@pytest.fixture
def run(make_config: Callable[..., Any], tiny_model_path: str) -> Run:
    def train(lora: bool = False, resume: Any = None, **settings: Any) -> tuple[Any, Seen]:
        seen = Seen()
        config = make_config(**{"max_steps": STEPS, "teacher_model_kind": "base"} | settings)
        trainer = seen.trainer = PGPOTrainer(
            model=tiny_model_path,
            reward_funcs=rises,
            args=config,
            train_dataset=tiny_dataset(),
            peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
            callbacks=[seen],
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer, seen

    return train


def _are_equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("rule", "lora"), [("once", False), ("gated", True)])
def test_the_student_of_a_step_becomes_the_teacher_which_then_stands_still(
    rule: str, lora: bool, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="poise"):
        trainer, seen = run(lora, **RULES[rule])
    told = [r.getMessage() for r in caplog.records if "becomes the teacher" in r.getMessage()]
    assert len(told) == 1 and f"Step {REFRESH}: the student becomes the teacher; " in told[0]
    counts = [log["pgpo/teacher_refreshes"] for log in trainer.state.log_history[:STEPS]]
    assert counts == [float(step >= REFRESH) for step in range(1, STEPS + 1)]
    for step in range(1, STEPS + 1):
        before = seen.teachers[1]  # the student as it began
        expected = before if step < REFRESH else seen.students[REFRESH]
        assert _are_equal(seen.teachers[step], expected), step
    assert not _are_equal(seen.students[REFRESH], seen.teachers[1])
    assert not _are_equal(seen.students[REFRESH], seen.students[STEPS])

    _, never = run(lora, output_dir=str(Path(trainer.args.output_dir) / "never"))
    assert not never.teachers  # TRL's base teacher
    for step in range(1, STEPS + 1):
        is_same = _are_equal(never.students[step], seen.students[step])
        assert is_same == (step <= REFRESH), step


def test_a_refreshed_adapter_is_what_the_teacher_runs_and_in_no_saved_folder(
    run: Run, tiny_model_path: str, tmp_path: Path
) -> None:
    trainer, seen = run(lora=True, save_strategy="steps", save_steps=STEPS, **RULES["once"])
    ids = torch.arange(4, 12).view(1, 8)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    alone = PeftModel(base, trainer.model.peft_config["default"]).eval()
    with torch.no_grad():
        for name, param in alone.named_parameters():
            if "lora_" in name:
                param.copy_(seen.students[REFRESH][name.replace(".default", ".teacher")])
        expected = alone(input_ids=ids).logits
    trainer.model.eval()
    with torch.no_grad(), trainer._get_teacher_context_for_self_distillation():
        found = trainer.teacher_model(input_ids=ids).logits
    with torch.no_grad():
        assert not torch.equal(found, trainer.model(input_ids=ids).logits)
    assert torch.equal(found, expected)

    trainer.save_model(str(tmp_path / "final"))
    for folder in (tmp_path / "run" / f"checkpoint-{STEPS}", tmp_path / "final"):
        assert not (folder / "teacher").exists()
        base = AutoModelForCausalLM.from_pretrained(trainer.model.name_or_path)
        loaded = PeftModel.from_pretrained(base, str(folder))
        factors = {n: p for n, p in loaded.named_parameters() if "lora_" in n}
        assert len(factors) == len(seen.students[STEPS])
        for name, value in seen.students[STEPS].items():
            assert torch.equal(factors[name.replace(".teacher", ".default")], value)


def _refreshes(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["pgpo/teacher_refreshes"] for line in lines[:STEPS]]


@pytest.mark.parametrize(("rule", "lora"), [("once", True), ("gated", False)])
def test_a_run_resumed_before_or_after_the_refresh_equals_the_whole_one(
    rule: str, lora: bool, run: Run, tmp_path: Path
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, **RULES[rule]}
    folder = tmp_path / "run"
    _, whole = run(lora, **settings)
    expected = _refreshes(folder)
    for step in (REFRESH, REFRESH - 1):
        for later in range(step + 1, STEPS + 1):
            shutil.rmtree(folder / f"checkpoint-{later}")
        _, resumed = run(lora, resume=True, **settings)
        assert list(resumed.students) == list(range(step + 1, STEPS + 1))
        for later in resumed.students:
            assert _are_equal(resumed.students[later], whole.students[later]), (step, later)
            assert _are_equal(resumed.teachers[later], whole.teachers[later]), (step, later)
        assert _refreshes(folder) == expected == [float(s >= REFRESH) for s in range(1, STEPS + 1)]


@pytest.mark.parametrize(("saved", "found"), [("once", "gated"), ("never", "once")])
def test_a_checkpoint_of_another_teacher_is_refused(saved: str, found: str, run: Run) -> None:
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    run(teacher_refresh=saved, **settings)
    with pytest.raises(ValueError, match="teacher_refresh that it was saved with"):
        run(teacher_refresh=found, resume=True, **settings | {"max_steps": 2})


def test_adapters_that_are_not_lora_alone_are_refused(
    make_config: Callable[..., Any], tiny_model_path: str
) -> None:
    ia3 = IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])
    with pytest.raises(ValueError, match="expected full training or LoRA factors alone"):
        PGPOTrainer(
            model=tiny_model_path,
            reward_funcs=vowel_reward,
            args=make_config(teacher_model_kind="base", teacher_refresh="once"),
            train_dataset=tiny_dataset(),
            peft_config=ia3,
        )
