"""Steps below the rounding of the weights are told, once; those above it, and float32, are not."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn, optim
from transformers import AutoModelForCausalLM

from poise import IGATrainer, PGPOTrainer
from poise.trl.rounding import RoundingCheck, precision_before_trl
from tests.tiny import tiny_dataset, tiny_isomers, tiny_tokenizer, vowel_reward

Factory = Callable[..., optim.Optimizer]


def _weights(size: float, dtype: torch.dtype) -> nn.Parameter:
    """Three of that size, and a zero."""
    return nn.Parameter(torch.tensor([size, -size, size, 0.0], dtype=dtype))


def _is_told(
    caplog: pytest.LogCaptureFixture, optimizer: Any, multipliers: Sequence[float | None] = ()
) -> int:
    caplog.clear()
    check: Any = RoundingCheck()
    check.on_train_begin(None, None, None, optimizer=optimizer)
    for multiplier in multipliers:
        check.on_log(None, None, None, logs={"pgpo/multiplier": multiplier}, optimizer=optimizer)
    return sum("below the rounding of" in r.message for r in caplog.records)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [3e-4])
def test_the_bound_is_where_a_weight_no_longer_moves(
    dtype: torch.dtype, rate: float, caplog: pytest.LogCaptureFixture
) -> None:
    bound = 4 * rate / torch.finfo(dtype).eps
    for size, expected in ((2 * bound, True), (bound / 2, False)):
        weight = _weights(size, dtype)
        before = weight.detach().clone()
        optimizer = optim.AdamW([weight], lr=rate, weight_decay=0)
        assert _is_told(caplog, optimizer) == expected
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        assert torch.equal(weight[:3], before[:3]) == expected


def test_it_is_told_once_and_with_the_multiplier(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = optim.AdamW([_weights(0.02, torch.bfloat16)], lr=1e-3)
    assert _is_told(caplog, optimizer, [1.0, None, 0.5]) == 0
    assert _is_told(caplog, optimizer, [0.5, 0.01, 0.01]) == 1
    assert "A step of 1e-05 (learning rate x multiplier)" in caplog.text
    assert "100 % of the trained weights (bfloat16)" in caplog.text


def test_the_highest_rate_of_a_schedule_counts(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = optim.AdamW([_weights(0.02, torch.bfloat16)], lr=1e-3)
    optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)  # a warm-up, from 0
    assert _is_told(caplog, optimizer) == 0


class Compensated(optim.AdamW):
    bf16_stochastic_round = True


PASSED_OVER: dict[str, tuple[Factory, torch.dtype]] = {
    "float32": (optim.AdamW, torch.float32),
    "float64": (optim.AdamW, torch.float64),
    "SGD": (optim.SGD, torch.bfloat16),
    "stochastic rounding": (Compensated, torch.bfloat16),
    "a Kahan sum": (
        lambda params, lr: optim.AdamW([{"params": params, "kahan_sum": None}], lr=lr),
        torch.bfloat16,
    ),
    "frozen": (
        lambda params, lr: optim.AdamW([p.requires_grad_(False) for p in params], lr=lr),
        torch.bfloat16,
    ),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_what_is_passed_over(case: str, caplog: pytest.LogCaptureFixture) -> None:
    factory, dtype = PASSED_OVER[case]
    assert _is_told(caplog, factory([_weights(1.0, dtype)], lr=1e-9), [0.01]) == 0


def _lora(path: str, dtype: torch.dtype) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return get_peft_model(model, LoraConfig(r=2, target_modules="all-linear")).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("is_iga", [True, False], ids=["IGA", "PGPO"])
def test_both_trainers_tell_of_adapters_that_stand_still(
    is_iga: bool,
    dtype: torch.dtype,
    tiny_model_path: str,
    make_config: Callable[..., Any],
    make_iga_config: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = _lora(tiny_model_path, dtype)
    settings = {"learning_rate": 1e-6, "max_steps": 1}
    common = {"processing_class": tiny_tokenizer()}
    trainer: Any
    if is_iga:
        args = make_iga_config(**settings)
        trainer = IGATrainer(model, args, train_dataset=tiny_isomers(), **common)
    else:
        args = make_config(teacher_model_kind="live", **settings)
        trainer = PGPOTrainer(model, vowel_reward, args, tiny_dataset(), **common)
    with caplog.at_level(logging.WARNING, logger="poise"):
        trainer.train()
    told = [r for r in caplog.records if "below the rounding of" in r.message]
    assert len(told) == (dtype == torch.bfloat16)


def test_what_undoes_the_casts_keeps_no_weights() -> None:
    """The trainer holds it, and whole weights would stay beside their shards."""
    model = nn.Linear(2, 2)
    undo = precision_before_trl(model, None)
    before = model.weight.detach().clone()
    seen = weakref.ref(model.weight)
    model.weight.data = model.weight.data.bfloat16()
    undo(model)
    assert torch.equal(model.weight, before)
    del model
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_trained_weights_of_a_model_given_by_name_are_in_float32(
    lora: bool, tiny_model_path: str, tmp_path: Path, make_config: Callable[..., Any]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.bfloat16)
    for saved in (model, tiny_tokenizer()):
        saved.save_pretrained(tmp_path / "model")
    trainer = PGPOTrainer(
        str(tmp_path / "model"),
        vowel_reward,
        make_config(model_init_kwargs={"dtype": "bfloat16"} if lora else None),
        tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
    )
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
