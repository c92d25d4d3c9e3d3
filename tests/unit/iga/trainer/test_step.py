"""What an IGA step does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from poise import IGATrainer
from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from tests.equivalence.iga_reference import reference_gradients, require_base_gradients
from tests.exact import ROUNDING
from tests.tiny import tiny_isomers

from .conftest import BARE, train, trained

IN_ORDER: dict[str, Any] = {"train_sampling_strategy": "sequential", "shuffle_dataset": False}
STEPS: dict[str, dict[str, Any]] = {
    "weight space": {"projection": "exact", "domain_weights": "equal"},
    "weight space, by tokens, no projection": {"projection": "none", "domain_weights": "tokens"},
    "factor space": {"space": "factor", "domain_weights": "equal"},
    "factor space, by tokens, two micro-batches": {
        "space": "factor",
        "domain_weights": "tokens",
        "per_device_train_batch_size": 6,
        "gradient_accumulation_steps": 2,
    },
}


def _grow(trainer: IGATrainer) -> None:
    """Makes the factors B other than 0, so that A has a gradient too."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * 0.1


@pytest.mark.usefixtures("float64", "device")
@pytest.mark.parametrize("case", STEPS)
def test_a_step_is_along_the_gradient_of_the_slow_reference(
    case: str, make: Callable[..., IGATrainer]
) -> None:
    trainer = make(**BARE | IN_ORDER | {"mask_scale": "layer"} | STEPS[case])
    _grow(trainer)
    expected = _reference(trainer)
    before = trained(trainer)
    after = train(trainer)
    # In factor space the micro-batches are one batch; the fourth set lacks a domain.
    for name, gradient in expected.items():
        found = before[name] - after[name]
        assert (found - gradient).norm() <= ROUNDING * gradient.norm(), name


def _reference(trainer: IGATrainer) -> dict[str, Tensor]:
    """K backward passes over the first four sets, by parameter's name."""
    sets: Any = trainer.train_dataset
    collated = trainer.data_collator([sets[i] for i in range(4)])
    inputs = {name: tensor.to(trainer.args.device) for name, tensor in collated.items()}
    domains = inputs.pop("domain")
    tokens = (inputs["labels"][:, 1:] != -100).sum(1).double()
    adapters = find_adapters(trainer.model)
    require_base_gradients(trainer.model, adapters)
    log_probs = trainer.model(**inputs, fused_lm_head=True).log_probs
    counts = tokens.new_zeros(3).index_add(0, domains, tokens)
    losses = tokens.new_zeros(3).index_add(0, domains, -log_probs.sum(1)) / counts
    by_tokens = trainer.args.domain_weights == "tokens"
    weights = DomainBatch(domains, counts).weights("tokens" if by_tokens else "equal").float()
    pairs = reference_gradients(trainer.model, adapters, losses, weights, trainer.args.iga())
    names = {id(p): n for n, p in trainer.model.named_parameters()}
    result = {}
    for adapter, gradients in zip(adapters, pairs, strict=True):
        for parameter, gradient in zip(adapter.parameters, gradients, strict=True):
            result[names[id(parameter)]] = gradient
        trainer.model.zero_grad()
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return result


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_gradients_are_finished_once_an_optimizer_step(
    limit: float, make: Callable[..., IGATrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 6}
    trainer = make(max_grad_norm=limit, **settings)
    calls: list[Any] = []
    finish = trainer.engine.finish  # type: ignore[union-attr]
    monkeypatch.setattr(trainer.engine, "finish", lambda rate: (calls.append(rate), finish(rate)))
    trainer.train()
    assert calls == [None] * 3


def test_retraction_trains_with_plain_sgd_also_at_rate_zero(
    make: Callable[..., IGATrainer],
) -> None:
    settings = BARE | {"update": "retraction", "learning_rate": 0.2, "warmup_steps": 1}
    assert settings.pop("max_steps") == 1
    still = make(**settings, max_steps=1)
    before = trained(still)
    after = train(still)  # the first step of a warm-up has rate 0
    assert all(torch.equal(after[n], before[n]) for n in before)
    moved = train(make(**settings, max_steps=3))
    assert any(not torch.equal(moved[n], before[n]) for n in before)
    assert all(bool(weight.isfinite().all()) for weight in moved.values())


@pytest.mark.usefixtures("float64", "device")
def test_a_batch_of_one_domain_is_plain_fine_tuning_also_by_the_retraction(
    make: Callable[..., IGATrainer],
) -> None:
    rows, methods = tiny_isomers(4, ("law",)), ({"update": "retraction"}, {"method": "erm"})
    masked, plain = (train(make(rows, **BARE | own)) for own in methods)
    for name, weight in plain.items():
        torch.testing.assert_close(masked[name], weight, rtol=ROUNDING, atol=ROUNDING)


def _add_another(model: Any) -> None:
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    model.set_adapter("second")


def _scale(model: Any) -> None:
    next(m for m in model.modules() if hasattr(m, "scale_layer")).scale_layer(2.0)


@pytest.mark.parametrize("change", [_add_another, _scale])
def test_an_adapter_that_changes_after_the_trainer_was_made_is_noticed(
    change: Callable[[Any], None], make: Callable[..., IGATrainer]
) -> None:
    trainer = make()
    change(trainer.model)
    with pytest.raises(RuntimeError, match="an adapter was added, removed"):
        trainer.train()
