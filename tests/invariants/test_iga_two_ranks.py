"""Two gloo ranks: factor space equals one rank; weight space averages what ranks masked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from poise.iga.domains import DomainBatch
from tests.exact import ROUNDING, apart, in_float64
from tests.grids import grid
from tests.invariants.iga_worker import make_trainer, run, run_exactly
from tests.processes import finish, run_ranks
from tests.tiny import EXACT

# Sets in order: rank 0 has the first two of four, rank 1 the others. Every fourth lacks a domain.
SETTINGS = {"train_sampling_strategy": "sequential", "shuffle_dataset": False, "lora_dropout": 0.0}


def _two_ranks(model: str, folder: Path, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    halved = settings | {"per_device_train_batch_size": 6}
    run_ranks(2, run_exactly, model, str(folder), halved)
    return load_file(folder / "final.safetensors")


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative, over the trained weights."""
    trained = [{n: w for n, w in weights.items() if "lora_" in n} for weights in (one, other)]
    return apart(*trained)


@pytest.mark.parametrize(
    ("weights", "scale"),
    grid([("equal", "layer"), ("tokens", "layer"), ("equal", "snr")], [("equal", "snr")]),
)
def test_in_factor_space_two_ranks_equal_one(
    weights: str, scale: str, tmp_path: Path, exact_model_path: str
) -> None:
    settings = SETTINGS | {
        "space": "factor",
        "domain_weights": weights,
        "mask_scale": scale,
        "max_steps": 5,
    }
    run_exactly(exact_model_path, str(tmp_path / "one"), settings)
    one = load_file(tmp_path / "one" / "final.safetensors")
    two = _two_ranks(exact_model_path, tmp_path / "two", settings)
    assert _distance(two, one) <= ROUNDING
    assert any(bool(weight.any()) for name, weight in one.items() if "lora_B" in name)


@pytest.mark.parametrize("applied_to", grid(["gradient", "update"], ["update"]))
def test_in_direction_space_two_ranks_equal_one(
    applied_to: str, tmp_path: Path, exact_model_path: str
) -> None:
    """By tokens, so that plain training's gradient is the same on two ranks."""
    space = {"space": "direction", "applied_to": applied_to}
    settings = SETTINGS | {"domain_weights": "tokens", "max_steps": 5}
    plain_settings, settings = settings | {"method": "erm"}, settings | space
    run_exactly(exact_model_path, str(tmp_path / "one"), settings)
    run_exactly(exact_model_path, str(tmp_path / "plain"), plain_settings)
    one, plain = (load_file(tmp_path / name / "final.safetensors") for name in ("one", "plain"))
    two = _two_ranks(exact_model_path, tmp_path / "two", settings)
    assert _distance(two, one) <= ROUNDING
    assert _distance(plain, one) > 1e-3


def _train_in_four_bits(model: str, folder: str, settings: dict[str, Any]) -> None:
    run(model, folder, settings | {"four_bits": torch.float32, "optim": "sgd"})


@pytest.mark.slow
@pytest.mark.parametrize("space", ["direction", "factor", "weight"])
def test_on_a_base_of_four_bits_two_ranks_equal_one(
    space: str, tmp_path: Path, tiny_model_path: str
) -> None:
    """In weight space, which masks what each rank has, a rank with two micro-batches."""
    pytest.importorskip("bitsandbytes")
    settings = SETTINGS | {"space": space, "domain_weights": "tokens", "max_steps": 5}
    halved, alone = settings | {"per_device_train_batch_size": 6}, settings
    if space == "weight":
        halved |= {"projection": "exact"}
        alone = halved | {"gradient_accumulation_steps": 2}
    finish(_train_in_four_bits, tiny_model_path, str(tmp_path / "one"), alone)
    run_ranks(2, _train_in_four_bits, tiny_model_path, str(tmp_path / "two"), halved)
    one, two = (load_file(tmp_path / name / "final.safetensors") for name in ("one", "two"))
    # A thousand float32 operations on the way to a gradient, five steps.
    bound = 5e3 * torch.finfo(torch.float32).eps
    for name, weight in one.items():
        if "lora_" in name:
            assert weight.dtype == torch.float32
            assert (two[name] - weight).norm() <= bound * weight.norm(), name
    assert any(bool(weight.any()) for name, weight in one.items() if "lora_B" in name)


def test_pcgrad_on_two_ranks_equals_one(tmp_path: Path, exact_model_path: str) -> None:
    """Also in the order that it draws."""
    settings = SETTINGS | {"method": "pcgrad", "max_steps": 5}
    run_exactly(exact_model_path, str(tmp_path / "one"), settings)
    one = load_file(tmp_path / "one" / "final.safetensors")
    two = _two_ranks(exact_model_path, tmp_path / "two", settings)
    assert _distance(two, one) <= ROUNDING


def test_group_dro_weighs_domains_by_their_losses_on_all_ranks(
    tmp_path: Path, exact_model_path: str
) -> None:
    options = {"method": "group_dro", "method_options": {"step_size": 0.5}}
    settings = SETTINGS | options | {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    run_exactly(exact_model_path, str(tmp_path / "one"), settings)
    _two_ranks(exact_model_path, tmp_path / "two", settings)
    (one,) = _group_weights(tmp_path / "one")
    first, second = _group_weights(tmp_path / "two")
    assert first == second == pytest.approx(one, rel=ROUNDING)
    assert max(one) > 1.01 * min(one)


def _group_weights(folder: Path) -> list[list[float]]:
    """GroupDRO's, as each rank has saved them."""
    files = sorted((folder / "checkpoint-1").glob("poise_state_*.json"))
    return [json.loads(file.read_text())["baseline"]["q"] for file in files]


def test_in_weight_space_two_ranks_step_along_the_mean_of_what_each_has_masked(
    tmp_path: Path, exact_model_path: str
) -> None:
    # Plain SGD with rate 1: the step is the gradient.
    settings = SETTINGS | {
        "projection": "exact",
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
    }
    two = _two_ranks(exact_model_path, tmp_path / "two", settings)
    with in_float64():
        start = make_trainer(exact_model_path, str(tmp_path / "start"), **EXACT | settings)
        sets: Any = start.train_dataset
        gradients = [_gradient(start, [sets[i] for i in places]) for places in ((0, 1), (2, 3))]
        whole = _gradient(start, [sets[i] for i in range(4)])
    before = {n: p.detach() for n, p in start.model.named_parameters() if p.requires_grad}
    mean = {n: before[n] - (gradients[0][n] + gradients[1][n]) / 2 for n in before}
    together = {n: before[n] - whole[n] for n in before}
    assert _distance(mean, two) <= ROUNDING
    assert _distance(together, two) > 1e-4  # a mask of the whole batch is another one


def _gradient(trainer: Any, members: list[Any]) -> dict[str, torch.Tensor]:
    """The engine's gradient of some sets as a micro-batch of their own, by hand."""
    inputs = trainer.data_collator(members)
    domains, labels = inputs.pop("domain"), inputs["labels"]
    counts = torch.zeros(3).double().index_add(0, domains, (labels[:, 1:] != -100).sum(1).double())
    trainer.model.zero_grad()
    with trainer.engine.collect(DomainBatch(domains, counts)):
        log_probs = trainer.model(**inputs, fused_lm_head=True).log_probs
        means = counts.new_zeros(3).index_add(0, domains, -log_probs.sum(1)) / counts
        trainer.engine.backward(means)
    trainer.engine.finish()
    parameters = trainer.model.named_parameters()
    return {n: p.grad.clone() for n, p in parameters if p.grad is not None}
