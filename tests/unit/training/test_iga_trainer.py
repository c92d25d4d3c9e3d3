"""What an IGA step does, what a run leaves behind, and that the host's own things still work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import LlamaForCausalLM

from poise.gradients.adapters import find_adapters
from poise.gradients.domains import domain_weights
from poise.gradients.reference import reference_gradients, require_base_gradients
from poise.training import IGATrainer
from tests.tiny import DOMAINS, tiny_isomers

# Plain SGD with rate 1 and without clipping: the step is the gradient.
BARE: dict[str, Any] = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "max_steps": 1}
IN_ORDER: dict[str, Any] = {"train_sampling_strategy": "sequential", "shuffle_dataset": False}


@pytest.fixture
def make(make_iga_config: Callable[..., Any], tiny_model_path: str) -> Callable[..., IGATrainer]:
    def build(rows: Dataset | None = None, **settings: Any) -> IGATrainer:
        return IGATrainer(
            model=tiny_model_path,
            args=make_iga_config(**settings),
            train_dataset=tiny_isomers() if rows is None else rows,
            peft_config=LoraConfig(r=2, target_modules="all-linear"),
        )

    return build


def _trained(trainer: IGATrainer) -> dict[str, Tensor]:
    parameters = trainer.model.named_parameters()
    return {n: p.detach().clone() for n, p in parameters if p.requires_grad}


def _train(trainer: IGATrainer) -> dict[str, Tensor]:
    trainer.train()
    return _trained(trainer)


def _grow(trainer: IGATrainer) -> None:
    """Makes the factors B other than 0, so that A has a gradient too."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def _lines(folder: Path, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


STEPS: dict[str, dict[str, Any]] = {
    "weight space": {"projection": "exact", "domain_weights": "equal"},
    "weight space, by tokens, no projection": {"projection": "none", "domain_weights": "tokens"},
    "factor space": {"space": "factor", "domain_weights": "equal"},
    "factor space, two micro-batches": {
        "space": "factor",
        "domain_weights": "equal",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    },
    "factor space, by tokens, two micro-batches": {
        "space": "factor",
        "domain_weights": "tokens",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.mark.parametrize("case", STEPS)
def test_a_step_is_along_the_gradient_of_the_slow_reference(
    case: str, make: Callable[..., IGATrainer]
) -> None:
    trainer = make(**BARE | IN_ORDER | {"mask_scale": "layer"} | STEPS[case])
    _grow(trainer)
    expected = _reference(trainer)
    before = _trained(trainer)
    after = _train(trainer)
    # In factor space the micro-batches are one batch; the fourth set lacks a domain.
    for name, gradient in expected.items():
        found = before[name] - after[name]
        assert (found - gradient).norm() <= 2e-4 * gradient.norm(), name


def _reference(trainer: IGATrainer) -> dict[str, Tensor]:
    """K backward passes over the first four sets, by parameter's name."""
    sets: Any = trainer.train_dataset
    inputs = trainer.data_collator([sets[i] for i in range(4)])
    domains = inputs.pop("domain")
    tokens = (inputs["labels"][:, 1:] != -100).sum(1).float()
    adapters = find_adapters(trainer.model)
    require_base_gradients(trainer.model, adapters)
    log_probs = trainer.model(**inputs, fused_lm_head=True).log_probs
    counts = torch.zeros(3).index_add_(0, domains, tokens)
    losses = torch.zeros(3).index_add_(0, domains, -log_probs.sum(1)) / counts
    weights = domain_weights(counts, by_tokens=trainer.args.domain_weights == "tokens").float()
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
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
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
    before = _trained(still)
    after = _train(still)  # the first step of a warm-up has rate 0
    assert all(torch.equal(after[n], before[n]) for n in before)
    moved = _train(make(**settings, max_steps=8))
    assert any(not torch.equal(moved[n], before[n]) for n in before)
    assert all(bool(weight.isfinite().all()) for weight in moved.values())


def test_training_learns(make: Callable[..., IGATrainer]) -> None:
    trainer = make(max_steps=25, domain_weights="equal")
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_logs_domains_and_layers(make: Callable[..., IGATrainer], tmp_path: Path) -> None:
    trainer = make(max_steps=4, logging_steps=2, tau_schedule="linear", tau_warmup_steps=2)
    trainer.train()
    metrics, layers = (_lines(tmp_path / "run", f) for f in ("metrics.jsonl", "layers.jsonl"))
    first, second = (line for line in metrics if "loss" in line)
    assert (first["iga/tau"], second["iga/tau"]) == (0.5, 1.0)
    for domain in DOMAINS:
        assert first[f"iga/loss/{domain}"] > 0
    assert first["loss"] == pytest.approx(
        sum(first[f"iga/loss/{domain}"] for domain in DOMAINS) / 3, rel=0.05
    )
    assert [line["step"] for line in layers] == [2, 4]
    assert len(layers[0]["layers"]) == 14  # seven matrices in each of two layers
    for figure in ("mask_mean", "suppressed_energy", "agreement", "rank_energy"):
        values = [layer[figure] for layer in layers[0]["layers"].values()]
        assert first[f"iga/{figure}"] == pytest.approx(sum(values) / 14)


def test_without_the_engine_there_are_losses_but_no_layers(
    make: Callable[..., IGATrainer], tmp_path: Path
) -> None:
    make(use_engine=False).train()
    metrics = _lines(tmp_path / "run", "metrics.jsonl")
    assert "iga/loss/law" in metrics[0]
    assert not any(name.startswith("iga/mask") for name in metrics[0])
    assert _lines(tmp_path / "run", "layers.jsonl") == []


def test_the_adapter_loads_in_plain_peft(
    make: Callable[..., IGATrainer], tmp_path: Path, tiny_model_path: str
) -> None:
    trainer = make()
    trainer.train()
    trainer.save_model(str(tmp_path / "run"))
    base = LlamaForCausalLM.from_pretrained(tiny_model_path)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "run"))
    ids = torch.tensor([[5, 6, 7, 8]])
    trainer.model.eval()
    with torch.no_grad():
        expected, found = trainer.model(input_ids=ids).logits, loaded(input_ids=ids).logits
        with loaded.disable_adapter():
            assert not torch.equal(loaded(input_ids=ids).logits, expected)
    assert torch.equal(found, expected)


def test_evaluation_is_the_hosts(make_iga_config: Callable[..., Any], tiny_model_path: str) -> None:
    rows = tiny_isomers(4)
    trainer = IGATrainer(
        tiny_model_path,
        make_iga_config(eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=3),
        train_dataset=tiny_isomers(),
        eval_dataset=rows,
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    trainer.train()
    line, _ = (line for line in trainer.state.log_history if "eval_loss" in line)
    assert line["step"] == 2
    assert line["eval_loss"] > 0
    assert not any(name.startswith("eval_iga") for name in line)


def test_no_hook_outlives_a_step_that_fails(
    make: Callable[..., IGATrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()

    def hooks() -> int:
        modules = list(trainer.model.modules())
        forward = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
        parameters = [p for p in trainer.model.parameters() if p.requires_grad]
        return forward + sum(len(p._backward_hooks or {}) for p in parameters)

    before, seen = hooks(), []

    def fail(loss: Tensor, **kwargs: Any) -> None:
        seen.append(hooks())
        raise RuntimeError("out of memory")

    monkeypatch.setattr(trainer.accelerator, "backward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.train()
    assert seen[0] > before
    assert hooks() == before


def test_a_batch_of_one_domain_is_plain_fine_tuning(make: Callable[..., IGATrainer]) -> None:
    rows = tiny_isomers(4, ("law",))
    settings = BARE | {"projection": "none"}
    masked, plain = (_train(make(rows, **settings, use_engine=use)) for use in (True, False))
    for name, weight in plain.items():
        torch.testing.assert_close(masked[name], weight, rtol=1e-5, atol=1e-6)


def test_bfloat16_trains(make: Callable[..., IGATrainer]) -> None:
    trainer = make(bf16=True, max_steps=6)
    after = _train(trainer)
    assert all(bool(weight.isfinite().all()) for weight in after.values())
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
