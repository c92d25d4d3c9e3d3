"""Two gloo ranks: factor space equals one rank; weight space averages what ranks masked."""

from __future__ import annotations

import json
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from poise.gradients.domains import DomainBatch
from tests.invariants.iga_worker import make_trainer, run, run_rank

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.invariants.iga_worker"])

# Sets in order: rank 0 has the first two of four, rank 1 the others. Every fourth lacks a domain.
SETTINGS = {"train_sampling_strategy": "sequential", "shuffle_dataset": False, "lora_dropout": 0.0}


def _two_ranks(model: str, folder: Path, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    halved = settings | {"per_device_train_batch_size": 2}
    args = (2, port, model, str(folder), halved)
    workers = [_PROCESSES.Process(target=run_rank, args=(rank, *args)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return load_file(folder / "final.safetensors")


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Relative, over the trained weights."""
    names = [name for name in one if "lora_" in name]
    difference = torch.cat([(one[n] - other[n]).flatten() for n in names]).norm()
    return float(difference / torch.cat([other[n].flatten() for n in names]).norm())


EPS = torch.finfo(torch.float32).eps  # for each step; what is masked otherwise is 1e-4 away


@pytest.mark.parametrize(
    ("weights", "scale"), [("equal", "layer"), ("tokens", "layer"), ("equal", "snr")]
)
def test_in_factor_space_two_ranks_equal_one(
    weights: str, scale: str, tmp_path: Path, tiny_model_path: str
) -> None:
    settings = SETTINGS | {
        "space": "factor",
        "domain_weights": weights,
        "mask_scale": scale,
        "max_steps": 50,
        "learning_rate": 1e-3,
    }
    run(tiny_model_path, str(tmp_path / "one"), settings)
    one = load_file(tmp_path / "one" / "final.safetensors")
    two = _two_ranks(tiny_model_path, tmp_path / "two", settings)
    assert _distance(two, one) <= 50 * EPS
    assert any(bool(weight.any()) for name, weight in one.items() if "lora_B" in name)


def test_pcgrad_on_two_ranks_equals_one(tmp_path: Path, tiny_model_path: str) -> None:
    """Also in the order that it draws."""
    settings = SETTINGS | {"method": "pcgrad", "max_steps": 20, "learning_rate": 1e-3}
    run(tiny_model_path, str(tmp_path / "one"), settings)
    one = load_file(tmp_path / "one" / "final.safetensors")
    two = _two_ranks(tiny_model_path, tmp_path / "two", settings)
    assert _distance(two, one) <= 1e-5


def test_group_dro_weighs_domains_by_their_losses_on_all_ranks(
    tmp_path: Path, tiny_model_path: str
) -> None:
    options = {"method": "group_dro", "method_options": {"step_size": 0.5}}
    settings = SETTINGS | options | {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    run(tiny_model_path, str(tmp_path / "one"), settings)
    _two_ranks(tiny_model_path, tmp_path / "two", settings)
    (one,) = _group_weights(tmp_path / "one")
    first, second = _group_weights(tmp_path / "two")
    assert first == second == pytest.approx(one, rel=1e-5)
    assert max(one) > 1.01 * min(one)


def _group_weights(folder: Path) -> list[list[float]]:
    """GroupDRO's, as each rank has saved them."""
    files = sorted((folder / "checkpoint-1").glob("poise_state_*.json"))
    return [json.loads(file.read_text())["baseline"]["q"] for file in files]


def test_in_weight_space_two_ranks_step_along_the_mean_of_what_each_has_masked(
    tmp_path: Path, tiny_model_path: str
) -> None:
    # Plain SGD with rate 1: the step is the gradient.
    settings = SETTINGS | {
        "projection": "exact",
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "max_grad_norm": 0.0,
    }
    two = _two_ranks(tiny_model_path, tmp_path / "two", settings)
    start = make_trainer(tiny_model_path, str(tmp_path / "start"), **settings)
    sets: Any = start.train_dataset
    gradients = [_gradient(start, [sets[i] for i in places]) for places in ((0, 1), (2, 3))]
    whole = _gradient(start, [sets[i] for i in range(4)])
    before = {n: p.detach() for n, p in start.model.named_parameters() if p.requires_grad}
    mean = {n: before[n] - (gradients[0][n] + gradients[1][n]) / 2 for n in before}
    together = {n: before[n] - whole[n] for n in before}
    assert _distance(mean, two) <= 50 * EPS
    assert _distance(together, two) > 1e-4  # a mask of the whole batch is another one


def _gradient(trainer: Any, members: list[Any]) -> dict[str, torch.Tensor]:
    """The engine's gradient of some sets as a micro-batch of their own, by hand."""
    inputs = trainer.data_collator(members)
    domains, labels = inputs.pop("domain"), inputs["labels"]
    counts = torch.zeros(3).index_add_(0, domains, (labels[:, 1:] != -100).sum(1).float())
    trainer.model.zero_grad()
    with trainer.engine.collect(DomainBatch(domains, counts)):
        log_probs = trainer.model(**inputs, fused_lm_head=True).log_probs
        means = torch.zeros(3).index_add_(0, domains, -log_probs.sum(1)) / counts
        means.mean().backward()
    parameters = trainer.model.named_parameters()
    return {n: p.grad.clone() for n, p in parameters if p.grad is not None}
