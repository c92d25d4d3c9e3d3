"""Wrappers, several GPUs and compiled models, without any of them: right, or refused early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.utils import DynamoBackend
from peft import LoraConfig
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from poise import IGATrainer, PGPOConfig, PGPOTrainer
from poise.pgpo.preflight import refuse_unsupported
from tests.tiny import tiny_config, tiny_dataset, tiny_isomers, tiny_tokenizer, vowel_reward

NEVER = "never looked at"


@pytest.fixture
def make(make_config: Callable[..., Any], tiny_model_path: str) -> Callable[..., PGPOTrainer]:
    def build(model: Any = tiny_model_path, lora: bool = False, **settings: Any) -> PGPOTrainer:
        return PGPOTrainer(
            model=model,
            reward_funcs=vowel_reward,
            args=make_config(**settings),
            train_dataset=tiny_dataset(),
            processing_class=None if isinstance(model, str) else tiny_tokenizer(),
            peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        )

    return build


@pytest.fixture
def make_iga(make_iga_config: Callable[..., Any]) -> Callable[..., IGATrainer]:
    def build(model: Any, **settings: Any) -> IGATrainer:
        return IGATrainer(
            model=model,
            args=make_iga_config(**settings),
            train_dataset=tiny_isomers(),
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(r=2, target_modules=["q_proj"]),
        )

    return build


def _model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config())


# DDP with device_ids


class Moving(nn.Module):
    """Does to its inputs what DDP with `device_ids` does: takes the first device's share of what
    it has moved there. What stays behind is spoilt."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        shares = [tuple(map(self._moved, inputs))] if inputs else []
        return self.module(*shares[0])

    def _moved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._moved(part) for name, part in value.items()}
        assert isinstance(value, Tensor)
        moved = value.clone()
        value.zero_()
        return moved


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_tiled_loss_reads_what_the_wrapper_has_moved(
    lora: bool, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(lora=lora, distillation_mode="full_logits")
    trainer.model.eval()
    batch = trainer._prepare_training_batch([{"prompt": f"add {i // 4} ="} for i in range(8)])
    monkeypatch.setattr(
        trainer.accelerator, "unwrap_model", lambda model: getattr(model, "module", model)
    )
    expected = trainer.compute_loss(trainer.model, batch)
    assert expected != 0
    assert torch.equal(trainer.compute_loss(Moving(trainer.model), batch), expected)


# Several devices


def test_several_gpus_of_one_process_are_refused(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PGPOConfig, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"PGPOTrainer cannot run under DataParallel .*2 GPUs"):
        make(NEVER)


class Loaded(Exception):
    """Raised in the place of loading a model."""


@pytest.mark.parametrize("own", [None, {"device_map": "auto"}])
@pytest.mark.parametrize("trainer", ["PGPO", "IGA"])
def test_a_model_is_loaded_whole_unless_the_user_says_otherwise(
    trainer: str,
    own: Any,
    make: Callable[..., Any],
    make_iga: Callable[..., Any],
    tiny_model_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def load(name: str, **kwargs: Any) -> None:
        asked.update(kwargs)
        raise Loaded

    for module in ("trl.experimental.sdpo.sdpo_trainer", "trl.trainer.sft_trainer"):
        monkeypatch.setattr(f"{module}.create_model_from_path", load)
    with pytest.raises(Loaded):
        {"PGPO": make, "IGA": make_iga}[trainer](tiny_model_path, model_init_kwargs=own)
    assert asked["device_map"] == (own or {"device_map": None})["device_map"]


def test_trls_own_teacher_is_loaded_whole(
    make: Callable[..., Any], tiny_model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def load(name: str, **kwargs: Any) -> Any:
        asked.update(kwargs)
        return _model()

    monkeypatch.setattr("trl.experimental.sdpo.sdpo_trainer.create_model_from_path", load)
    make(LlamaForCausalLM.from_pretrained(tiny_model_path), teacher_from_student=False)
    assert asked["device_map"] is None


@pytest.mark.parametrize("trainer", ["PGPO", "IGA"])
def test_a_model_on_several_devices_is_refused(
    trainer: str, make: Callable[..., Any], make_iga: Callable[..., Any]
) -> None:
    model = _model()
    model.hf_device_map = {"model": 0, "lm_head": "cpu"}
    with pytest.raises(ValueError, match="spread over 0, cpu, expected one device"):
        {"PGPO": make, "IGA": make_iga}[trainer](model)
    model.hf_device_map = {"": "cpu"}
    {"PGPO": make, "IGA": make_iga}[trainer](model)


# Compiled models


def _compiled(how: str) -> Any:
    model = _model()
    if how == "wrapped":
        return torch.compile(model, backend="eager")
    (model if how == "in place" else model.model).compile(backend="eager")
    return model


@pytest.mark.parametrize("how", ["wrapped", "in place", "backbone"])
def test_a_compiled_model_is_refused_by_the_tiled_loss(how: str, make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"the model is compiled .*set tiled_loss=False"):
        make(_compiled(how))


def test_compilation_is_refused_with_the_tiled_loss(make_config: Callable[..., Any]) -> None:
    for settings in ({"torch_compile": True}, {"torch_compile_backend": "eager"}):
        with pytest.raises(ValueError, match="expected tiled_loss=False"):
            make_config(**settings)


def test_compilation_by_accelerate_is_refused_with_the_tiled_loss(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    plugin = trainer.accelerator.state.dynamo_plugin
    monkeypatch.setattr(plugin, "backend", DynamoBackend.INDUCTOR)
    with pytest.raises(ValueError, match=r"Accelerate is told to compile .*tiled_loss=False"):
        refuse_unsupported(trainer)
