"""Weighted by tokens, without mask and projection, IGA is TRL's SFTTrainer on the same batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from poise import IGATrainer
from poise.iga.batches import IsomerSets, rows_by_domain
from poise.iga.settings import IGA
from tests.exact import ROUNDING, apart, same
from tests.grids import grid
from tests.tiny import DOMAINS, tiny_isomers

pytestmark = pytest.mark.usefixtures("float64", "device")

NEUTRAL = {"domain_weights": "tokens", "tau": 0.0, "projection": "none", "exact_resume": False}
HOST: dict[str, dict[str, Any]] = {
    "one micro-batch": {},
    "three micro-batches": {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 6},
    "no clipping, checkpointing": {"max_grad_norm": 0.0, "gradient_checkpointing": True},
}
COMMON = {"max_steps": 5}


class _SameBatches(SFTTrainer):  # type: ignore[misc]
    """TRL, fed with the sequences of whole sets by domain; its code is untouched."""

    def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
        return IsomerSets(super()._prepare_dataset(*args, **kwargs), DOMAINS)


def _flat(collate: Any) -> Any:
    return lambda sets: collate(rows_by_domain(sets))


def _weights(trainer: Any) -> dict[str, torch.Tensor]:
    trainer.train()
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


def _arguments(model: str, config: Any) -> dict[str, Any]:
    return {
        "model": model,
        "args": config,
        "train_dataset": tiny_isomers(),
        "peft_config": LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1),
    }


@pytest.fixture(scope="module")
def host_runs() -> dict[Any, dict[str, torch.Tensor]]:
    """The host's weights by setting: two tests compare with each of them."""
    return {}


@pytest.fixture
def run_host(
    host_runs: dict[Any, Any],
    make_iga_config: Callable[..., Any],
    exact_model_path: str,
    device: torch.device,
) -> Callable[[str], dict[str, torch.Tensor]]:
    def run(case: str) -> dict[str, torch.Tensor]:
        key = (case, device)
        if key not in host_runs:
            config = make_iga_config(SFTConfig, **COMMON | HOST[case])
            config.per_device_train_batch_size //= len(DOMAINS)  # its items are sets
            trainer = _SameBatches(**_arguments(exact_model_path, config))
            trainer.data_collator = _flat(trainer.data_collator)
            host_runs[key] = _weights(trainer)
        return host_runs[key]

    return run


@pytest.mark.parametrize("case", grid(HOST, ["three micro-batches"]))
def test_without_the_engine_it_is_the_host_bit_for_bit(
    case: str,
    run_host: Callable[[str], Any],
    make_iga_config: Callable[..., Any],
    exact_model_path: str,
) -> None:
    expected = run_host(case)
    config = make_iga_config(**COMMON | HOST[case] | NEUTRAL)
    trainer = IGATrainer(**_arguments(exact_model_path, config))
    assert trainer.engine is None
    found = _weights(trainer)
    assert any(bool(weight.any()) for name, weight in found.items() if "lora_B" in name)
    assert same(found, expected)


CASES = [(case, "weight") for case in HOST] + [("three micro-batches", "factor")]
QUICK = [("three micro-batches", "factor"), ("no clipping, checkpointing", "weight")]


@pytest.mark.parametrize(("case", "space"), grid(CASES, QUICK))
def test_through_the_engine_it_is_the_host_within_rounding(
    case: str,
    space: str,
    run_host: Callable[[str], Any],
    make_iga_config: Callable[..., Any],
    exact_model_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = run_host(case)
    settings = COMMON | HOST[case] | NEUTRAL | {"space": space}
    monkeypatch.setattr(IGA, "is_neutral", False)
    trainer = IGATrainer(**_arguments(exact_model_path, make_iga_config(**settings)))
    assert trainer.engine is not None
    found = _weights(trainer)
    assert apart(found, expected) <= ROUNDING
