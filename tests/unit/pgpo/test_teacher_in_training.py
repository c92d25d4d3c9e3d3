"""The teacher in a run: that of the best step, under autocast, out of what is saved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, TrainerCallback

from poise import PGPOTrainer
from tests.tiny import tiny_dataset, tiny_tokenizer, vowel_reward

BEST = 2


class BestStep(TrainerCallback):  # type: ignore[misc]
    """Makes step `BEST` the best, and keeps the teacher of every step."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, Tensor]] = {}
        self.trainer: Any = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["metrics"]["eval_score"] = -abs(state.global_step - BEST)
        self.seen[state.global_step] = self.trainer.teacher.state_dict()


@pytest.fixture
def make(make_config: Callable[..., Any], tiny_model_path: str) -> Callable[..., PGPOTrainer]:
    def build(model: Any = tiny_model_path, lora: bool = False, **settings: Any) -> PGPOTrainer:
        return PGPOTrainer(
            model=model,
            reward_funcs=vowel_reward,
            args=make_config(**settings),
            train_dataset=tiny_dataset(),
            eval_dataset=tiny_dataset(2),
            processing_class=None if isinstance(model, str) else tiny_tokenizer(),
            peft_config=LoraConfig(r=2, target_modules=["q_proj"]) if lora else None,
        )

    return build


WITH_BEST: dict[str, Any] = {
    "max_steps": 3,
    "save_strategy": "steps",
    "save_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "num_generations_eval": 2,
    "per_device_eval_batch_size": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "score",
    "greater_is_better": True,
}


def _run_to_the_best(make: Callable[..., Any], **settings: Any) -> tuple[Any, BestStep]:
    trainer, best = make(**WITH_BEST | settings), BestStep()
    best.trainer = trainer
    trainer.add_callback(best)
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{BEST}")
    return trainer, best


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_teacher_beside_the_best_student_is_of_its_step(
    lora: bool, make: Callable[..., Any], tmp_path: Path
) -> None:
    trainer, best = _run_to_the_best(make, lora=lora)
    found = trainer.teacher.state_dict()
    assert all(torch.equal(found[name], value) for name, value in best.seen[BEST].items())
    assert any(not torch.equal(found[name], value) for name, value in best.seen[3].items())


def test_without_exact_resume_the_teacher_of_another_step_is_named(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        _run_to_the_best(make, exact_resume=False)
    assert "its teacher that of the last one" in caplog.text


@pytest.mark.parametrize("own", [True, False], ids=["ours", "TRL's"])
def test_a_lora_teacher_is_in_no_saved_folder(
    own: bool, make: Callable[..., Any], tmp_path: Path, tiny_model_path: str
) -> None:
    settings = {"teacher_from_student": own, "exact_resume": own}
    trainer = make(lora=True, max_steps=1, save_strategy="steps", save_steps=1, **settings)
    trained = [n for n, p in trainer.model.named_parameters() if p.requires_grad]
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    trainer.model.save_pretrained(tmp_path / "by the model")
    places = [tmp_path / "run" / "checkpoint-1", tmp_path / "final", tmp_path / "by the model"]
    for folder in places:
        assert not (folder / "teacher").exists()
        base = AutoModelForCausalLM.from_pretrained(tiny_model_path)
        loaded = PeftModel.from_pretrained(base, str(folder)).eval()
        ids = torch.arange(4, 12).view(1, 8)
        assert torch.equal(loaded(input_ids=ids).logits, trainer.model.eval()(input_ids=ids).logits)
    assert trainer.model.active_adapter == "default"
    assert [n for n, p in trainer.model.named_parameters() if p.requires_grad] == trained


@pytest.mark.filterwarnings("ignore:.*already contains a PEFT adapter:UserWarning")
def test_a_second_trainer_on_one_adapted_model_has_its_own_teacher(
    make: Callable[..., Any], tiny_model_path: str
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    for _ in range(2):
        trainer = make(model, max_steps=1, warmup_steps=0)
        hooks = [len(m._forward_pre_hooks) for m in model.modules()]
        trainer.train()
    assert max(hooks) == 1
    assert list(trainer.teacher.state_dict())


@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "TRL's loss"])
@pytest.mark.parametrize("kind", ["ema", "base"])
def test_a_copied_teacher_runs_in_the_students_precision(
    tiled: bool, kind: str, make: Callable[..., Any]
) -> None:
    trainer = make(tiled_loss=tiled, teacher_model_kind=kind, bf16=True, max_steps=1)
    assert trainer.teacher_model is not trainer.model
    seen: dict[str, Any] = {}
    for name, model in (("teacher", trainer.teacher_model), ("student", trainer.model)):
        model.model.layers[0].self_attn.q_proj.register_forward_hook(
            lambda _module, _args, output, name=name: seen.update({name: output.dtype})
        )
    trainer.train()
    assert seen == {"teacher": torch.bfloat16, "student": torch.bfloat16}


@pytest.mark.parametrize("init", [True, "pissa"], ids=["trained", "pissa"])
def test_the_base_teacher_of_an_adapter_is_the_student_at_the_start(
    init: Any, make: Callable[..., Any], tiny_model_path: str
) -> None:
    """Also where the model without adapters is another one."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=init)
    model = get_peft_model(plain, config)
    if init is True:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
    ids = torch.arange(3, 13).view(2, 5)
    model.eval()
    before = model(ids).logits.detach()
    trainer = make(model, max_steps=3, teacher_model_kind="base", learning_rate=0.1)
    trainer.train()
    trainer.model.eval()
    with torch.no_grad(), trainer._get_teacher_context_for_self_distillation():
        after = trainer.teacher_model(ids).logits
    with torch.no_grad():
        moved = trainer.model(ids).logits
    assert torch.equal(after, before)
    assert not torch.equal(moved, before)
