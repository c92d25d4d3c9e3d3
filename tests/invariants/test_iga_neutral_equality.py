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

NEUTRAL = {"domain_weights": "tokens", "tau": 0.0, "projection": "none", "exact_resume": False}
MICRO_BATCHES = {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 6}
CASES: dict[str, dict[str, Any]] = {
    "one micro-batch": {},
    "three micro-batches": MICRO_BATCHES,
    "no clipping, checkpointing": {"max_grad_norm": 0.0, "gradient_checkpointing": True},
}


class _SameBatches(SFTTrainer):  # type: ignore[misc]
    """TRL, fed with the sequences of whole sets by domain; its code is untouched."""

    def _prepare_dataset(self, *args: Any, **kwargs: Any) -> Any:
        return IsomerSets(super()._prepare_dataset(*args, **kwargs), DOMAINS)


def _weights(trainer: Any) -> dict[str, torch.Tensor]:
    trainer.train()
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.usefixtures("float64", "device")
@pytest.mark.parametrize("case", grid(CASES, ["three micro-batches"]))
def test_without_the_engine_it_is_the_host_bit_for_bit_and_with_it_within_rounding(
    case: str,
    make_iga_config: Callable[..., Any],
    exact_model_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build(kind: Any, config: Any) -> Any:
        lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.1)
        rows = tiny_isomers()
        return kind(model=exact_model_path, args=config, train_dataset=rows, peft_config=lora)

    settings = {"max_steps": 5} | CASES[case]
    config = make_iga_config(SFTConfig, **settings)
    config.per_device_train_batch_size //= len(DOMAINS)  # its items are sets
    host = build(_SameBatches, config)
    collate = host.data_collator
    host.data_collator = lambda sets: collate(rows_by_domain(sets))
    expected = _weights(host)

    plain = build(IGATrainer, make_iga_config(**settings | NEUTRAL))
    assert plain.engine is None
    found = _weights(plain)
    assert any(bool(weight.any()) for name, weight in found.items() if "lora_B" in name)
    assert same(found, expected)

    monkeypatch.setattr(IGA, "is_neutral", False)
    for space in ("weight", "factor"):
        trainer = build(IGATrainer, make_iga_config(**settings | NEUTRAL | {"space": space}))
        assert trainer.engine is not None
        assert apart(_weights(trainer), expected) <= ROUNDING
