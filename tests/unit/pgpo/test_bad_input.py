"""Bad input gives one clear error before any training: expected, found, what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from datasets import Dataset
from peft import LoraConfig
from torch import optim
from transformers import LlamaForCausalLM, Trainer
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

from poise import PGPOTrainer
from poise.pgpo.preflight import BEST
from poise.trl.contract import SDPOConfig, SDPOTrainer
from poise.trl.preflight import FIGURES
from tests.tiny import UNSCALED, tiny_dataset, tiny_tokenizer, vowel_reward


@pytest.fixture
def make(make_config: Callable[..., Any], tiny_model_path: str) -> Callable[..., PGPOTrainer]:
    def build(settings: dict[str, Any] | None = None, **overrides: Any) -> PGPOTrainer:
        arguments: dict[str, Any] = {
            "model": tiny_model_path,
            "reward_funcs": vowel_reward,
            "train_dataset": tiny_dataset(),
        }
        return PGPOTrainer(args=make_config(**settings or {}), **arguments | overrides)

    return build


def _rows(**columns: list[Any]) -> Dataset:
    return Dataset.from_dict(columns)


DATASETS: dict[str, tuple[Any, str]] = {
    "no dataset": (None, "train_dataset is required"),
    "empty dataset": (_rows(prompt=[]), "empty|no rows"),
    "misspelt column": (_rows(promt=["x"], answer=["A"]), "promt"),
    "misspelt hint": (_rows(prompt=["x"], answer=["A"], privileged_contex=["y"]), "rename it"),
    "empty prompt": (_rows(prompt=["x", " "]), "row 1"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_dataset_that_cannot_be_trained_on(case: str, make: Callable[..., Any]) -> None:
    dataset, message = DATASETS[case]
    with pytest.raises(ValueError, match=message):
        make({"include_environment_feedback": True}, train_dataset=dataset)


def _of_a_column(completions: list[str], target: list[str], **_: Any) -> list[float]:
    return [0.0 for _ in completions]


REWARDS: dict[str, tuple[Any, type[Exception], str]] = {
    "too short": (lambda completions, **_: [1.0], ValueError, "expected 4, got 1"),
    "no list": (lambda completions, **_: 1.0, TypeError, "got float"),
    "raises on an empty completion": (
        lambda completions, **_: [float(text[0] == "a") for text in completions],
        RuntimeError,
        "raised IndexError on empty completions",
    ),
    "of a column that is not there": (
        _of_a_column,
        ValueError,
        r"train_dataset, for reward function '_of_a_column': expected a column 'target', found",
    ),
    "not of the columns that are there": (
        lambda completions, prompts: [],
        RuntimeError,
        r"unexpected keyword argument .*; it is called with .*prompts, ",
    ),
}


@pytest.mark.parametrize("case", REWARDS)
def test_reward_function_that_is_wrong(case: str, make: Callable[..., Any]) -> None:
    function, error, message = REWARDS[case]
    with pytest.raises(error, match=message):
        make(reward_funcs=function)


def test_arguments_of_another_trainer(
    make_config: Callable[..., Any], tiny_model_path: str
) -> None:
    with pytest.raises(TypeError, match="must be a PGPOConfig, got SDPOConfig"):
        PGPOTrainer(
            model=tiny_model_path,
            reward_funcs=vowel_reward,
            args=make_config(SDPOConfig),
            train_dataset=tiny_dataset(),
        )


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "negative sensitivity": ({"sensitivity": -0.5}, "sensitivity must be at least 0"),
    "unknown estimator": ({"signal_estimator": "entropie"}, "signal_estimator must be one of"),
    "top-k without k": (
        {"distillation_mode": "topk_logits", "distillation_alpha": 0.5},
        "expected distillation_topk a number",
    ),
    "a reference in the tiled blend": (
        {"distillation_mode": "full_logits", "distillation_weight": 0.5, "beta": 0.1},
        "beta=0.1 asks for a KL to a reference model",
    ),
    "target moved all the way": ({"target_mix": 1.0}, "target_mix must be in"),
    "token weight with TRL's loss": (
        {"token_weight": "information", "tiled_loss": False},
        "token_weight='information' shapes the tiled",
    ),
    "unknown average": ({"loss_type": "mean", "distillation_weight": 0.5}, "loss_type must be one"),
    "routing, a word": ({"routing": "yes"}, "routing must be one of"),
    "half a token": ({"distance_tokens": 1.5}, "distance_tokens must be a whole number"),
    "no distance": (
        {"multiplier": "distance", "target_distance": 0.0},
        "target_distance must be positive, got 0.0",
    ),
    "routing with TRL's loss": (
        {"routing": True, "tiled_loss": False},
        "expected tiled_loss=True, found False",
    ),
    "routing in a blend": (
        {"routing": True, "distillation_mode": "full_logits", "distillation_weight": 0.5},
        "expected distillation_weight=1.0, found 0.5",
    ),
    "routing by pass rate": (
        {"routing": True, "pass_rate_weight": True},
        "expected pass_rate_weight=False, found True",
    ),
    "routing of one rollout": (
        {"routing": True, "num_generations": 1, "include_environment_feedback": True},
        "routing=True gives each rollout of a group .* found 1;",
    ),
    "pass rate with the host's loss": (
        {"pass_rate_weight": True, "tiled_loss": False},
        "expected tiled_loss=True, found False",
    ),
    "pass rate with the policy loss alone": (
        UNSCALED | {"pass_rate_weight": True, "distillation_weight": 0.0},
        "expected distillation_weight=1.0, found 0.0",
    ),
    "resampling with vLLM": ({"use_vllm": True, "max_resamples": 2}, "max_resamples=2 samples"),
    "one rollout and nothing else to show": ({"num_generations": 1}, "num_generations=1"),
    "neither siblings nor feedback": (
        {"use_successful_as_teacher": False},
        "found num_generations=4 and use_successful",
    ),
    "one rollout with a policy loss": (
        UNSCALED | {"num_generations": 1, "distillation_weight": 0.0, "tiled_loss": False},
        "distillation_weight=0.0 compares the rollouts",
    ),
    "no tile": ({"loss_tile_tokens": 0}, "loss_tile_tokens must be at least 1"),
    "LOMO": ({"optim": "lomo"}, "lomo steps inside the backward, past PGPO's multiplier"),
    "a layer-wise optimizer, as SDPO": (
        UNSCALED | {"optim": "galore_adamw_layerwise"},
        "galore_adamw_layerwise steps inside the backward, past .*normalize_by_distilled",
    ),
    "broken JSON": (
        {"model_init_kwargs": "{dtype}"},
        "model_init_kwargs: expected a mapping in JSON",
    ),
    "a JSON list": (
        {"model_init_kwargs": '["dtype"]'},
        "model_init_kwargs: expected a mapping in JSON",
    ),
    "a word for JSON": ({"fsdp_config": "fsdp"}, "fsdp_config: .* a file that holds one, found"),
    "a misspelt key of a generation": (
        {"generation_kwargs": {"eos_token_id": 1, "top_kk": 5}},
        "generation_kwargs: .*found 'top_kk'; did you mean 'top_k'",
    ),
    "a strange key of a generation": ({"generation_kwargs": {"xyz": 5}}, "'xyz'; leave it out"),
    "negative limit": ({"max_nonfinite_steps": -1}, "max_nonfinite_steps must be at least 0"),
    "a refreshed teacher of TRL's": (
        {"teacher_refresh": "once", "teacher_model_kind": "ema", "teacher_from_student": False},
        "expected teacher_model_kind='base', found 'ema'; expected teacher_from_student=True",
    ),
    "a refresh of another kind": ({"teacher_refresh": "often"}, "teacher_refresh must be one of"),
    "no ratio": (
        {"signal_estimator": "pointwise", "signal_reference": "initial"},
        "expected signal_reference='none'",
    ),
    "a teacher's server": ({"use_teacher_server": True}, "expected tiled_loss=False"),
    "a schedule-free optimizer": ({"optim": "schedule_free_radam"}, "saves other weights than it"),
    "a distance that is a word": ({"target_distance": "far"}, "target_distance must be positive"),
    "weights alone": ({"save_only_model": True}, "expected exact_resume=False"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_setting_outside_its_range(case: str, make_config: Callable[..., Any]) -> None:
    settings, message = SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        make_config(**settings)


def test_optimizers_that_nothing_of_poise_goes_through_are_the_hosts_business(
    make_config: Callable[..., Any],
) -> None:
    off = UNSCALED | {"normalize_by_distilled": False, "skip_nonfinite_steps": False}
    make_config(optim="adalomo", **off)
    make_config(optim="schedule_free_adamw", **UNSCALED)


def test_the_users_own_optimizer_that_steps_inside_the_backward(make: Callable[..., Any]) -> None:
    optimizer = LayerWiseDummyOptimizer({}, lr=0.1)
    with pytest.raises(ValueError, match="LayerWiseDummyOptimizer steps inside the backward"):
        make(optimizers=(optimizer, None))


def test_an_optimizer_that_was_made_before_the_adapter(
    make: Callable[..., Any], tiny_model_path: str
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    adapter = LoraConfig(r=2, target_modules="all-linear")
    own = {"model": model, "optimizers": (optim.AdamW(model.parameters()), None)}
    with pytest.raises(ValueError, match=r"one of \d+ tensors that are not.*make the adapter"):
        make(peft_config=adapter, **own)


def test_the_best_model_is_that_of_a_figure_that_there_is(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"expected 'self_distillation/reward_mean'.* 'reward'"):
        make(kept | {"metric_for_best_model": "reward"}, eval_dataset=tiny_dataset())
    trainer = make(kept, eval_dataset=tiny_dataset())
    found = trainer.evaluate()
    plain = {name.removeprefix("eval_") for name in found if "/" not in name}
    assert plain - {"epoch", "model_preparation_time"} == {*FIGURES} and f"eval_{BEST}" in found
    trainer = make(kept, eval_dataset={"part": tiny_dataset()})
    with pytest.raises(ValueError, match=r"expected .*'part_loss', .* found 'loss'"):
        trainer.train()
    assert "keeps the model of the lowest loss" in caplog.text


def test_what_is_not_installed(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny_model_path: str
) -> None:
    """Before the model is loaded; who hands an optimizer over needs none of another's packages."""

    def lacks(*_: Any) -> Any:
        raise ImportError("You need to install it.")

    with pytest.raises(ValueError, match=r"report_to: .*none\), found 'nosuch': no such tracker"):
        make({"report_to": "nosuch"}, model="no model")
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", lacks)
    with pytest.raises(ImportError, match=r"optim='sgd': You need to install it"):
        make({"optim": "sgd"}, model="no model")
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    own = (optim.AdamW(model.parameters()), None)
    make({"optim": "sgd"}, model=model, processing_class=tiny_tokenizer(), optimizers=own)


def test_an_adapter_of_no_layer_is_refused_before_a_model_is_loaded(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tiny_model_path: str
) -> None:
    monkeypatch.setattr(SDPOTrainer, "__init__", None)  # to call it would fail
    state = torch.get_rng_state()
    for layers in ("nosuch", ["nosuch"], "model"):
        with pytest.raises(ValueError, match=r"adapter that fits.*may name down_proj, .*q_proj"):
            make(model=tiny_model_path, peft_config=LoraConfig(target_modules=layers))
    with pytest.raises(TypeError):  # of the trainer that is not there
        make(model=tiny_model_path, peft_config=LoraConfig(target_modules="all-linear"))
    assert torch.equal(torch.get_rng_state(), state)


def test_resume_from_a_checkpoint_that_does_not_fit(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"teacher_model_kind": "live", "save_strategy": "steps", "save_steps": 1}
    trainer = make(settings | {"max_steps": 1})
    trainer.train()
    other = make(settings | {"teacher_model_kind": "ema"})
    with pytest.raises(ValueError, match="kind 'ema', but it holds no teacher"):
        other.train(resume_from_checkpoint=True)
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    with pytest.raises(ValueError, match="written with ranks 1, this run has ranks 2"):
        trainer.train(resume_from_checkpoint=True)


def test_a_deepspeed_config_is_checked_before_a_model_is_loaded(
    make_config: Callable[..., Any],
) -> None:
    args = make_config()
    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 0}})
    args.deepspeed_plugin = SimpleNamespace(hf_ds_config=config)
    with pytest.raises(ValueError, match="ZeRO stage 0"):
        PGPOTrainer("no model", vowel_reward, args, tiny_dataset())


def test_a_second_run_of_a_deepspeed_engine_is_refused(make: Callable[..., Any]) -> None:
    trainer: Any = make()
    trainer.is_deepspeed_enabled, trainer.deepspeed = True, object()
    with pytest.raises(ValueError, match="engine is made already"):
        trainer.train()


def test_a_parallelism_config_is_refused(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    monkeypatch.setattr(type(trainer.accelerator), "parallelism_config", object())
    with pytest.raises(ValueError, match="PGPOTrainer cannot run with a parallelism_config"):
        trainer._setup_teacher_model()


def test_nothing_is_left_in_the_output_folder_by_a_refused_start(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="row 1"):
        make({"output_dir": str(folder)}, train_dataset=_rows(prompt=["x", ""]))
    assert not folder.exists() or os.listdir(folder) == []
