"""The engine in a training loop: what it leaves behind, and what it forgets."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, optim

from poise.iga import mask
from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import difference, engine_step
from tests.equivalence.iga_models import llama, toy

from .engine_steps import BATCH, OTHER, every_mask, every_space, take_step

# The model


@every_space
def test_the_model_is_untouched_outside_a_step(method: IGA, tmp_path: Path) -> None:
    model = toy()
    before, keys = model(BATCH.ids), list(model.state_dict())
    engine = GradientEngine(model, method)
    with engine.collect(DomainBatch(BATCH.domains, BATCH.counts)):
        assert torch.equal(model(BATCH.ids), before)
    take_step(engine, model)
    assert torch.equal(model(BATCH.ids), before)
    assert list(model.state_dict()) == keys
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == 4
    copy.deepcopy(model)


@every_space
def test_a_forward_without_gradient_may_run_within_a_step(method: IGA) -> None:
    model = toy()
    engine, info = GradientEngine(model, method), DomainBatch(BATCH.domains, BATCH.counts)
    expected = take_step(GradientEngine(model, method), model)
    model.zero_grad()
    with engine.collect(info):
        losses = BATCH.losses(model)
        with torch.no_grad():
            model(OTHER.ids[:1])
        engine.backward(losses)
    engine.finish(0.1)
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(map(torch.equal, found, expected))


def _live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@every_space
@pytest.mark.parametrize("is_read", [True, False])
def test_no_tensor_is_left_of_a_step(method: IGA, is_read: bool) -> None:
    """Also where nobody reads the statistics."""
    model = toy()
    engine, optimizer = GradientEngine(model, method), optim.SGD(model.parameters(), lr=1e-3)
    counts = []
    for step in range(20):
        take_step(engine, model, (BATCH, OTHER)[step % 2])
        optimizer.step()
        if is_read:
            engine.statistics()
        if step in (3, 19):
            counts.append(_live_tensors())
    assert counts[1] <= counts[0]


@every_mask
@pytest.mark.parametrize("is_kept", [True, False])
def test_memory_of_layers_is_kept_on_cpus_and_given_back_elsewhere(
    method: IGA, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_kept:
        monkeypatch.setattr(mask, "_KEPT", ())
    model = toy()
    engine = GradientEngine(model, method)
    with engine.collect(DomainBatch(BATCH.domains, BATCH.counts)):
        engine.backward(BATCH.losses(model))
        assert engine._space._scratch.size > 0
    sizes = [engine._space._scratch.size]
    engine.finish(0.1)
    sizes.append(engine._space._scratch.size)
    assert (min(sizes) > 0) if is_kept else (sizes == [0, 0])


# Settings of a step


@every_mask
def test_the_temperature_may_be_that_of_the_step(method: IGA) -> None:
    model, info = toy(), DomainBatch(BATCH.domains, BATCH.counts)
    means = []
    for tau in (None, 0.0, method.tau, 30.0):
        engine = GradientEngine(model, method)
        with engine.collect(info, tau):
            engine.backward(BATCH.losses(model))
        engine.finish(0.1)
        means.append(next(iter(engine.statistics().values())).mask_mean)
    assert means[0] == means[2]
    assert means[1] == 1.0 > means[2] > means[3] > 0


@every_mask
def test_statistics_are_of_every_layer_and_read_once(method: IGA) -> None:
    model = toy()
    engine = GradientEngine(model, method)
    take_step(engine, model)
    found = engine.statistics()
    names = [a.name for a in engine.adapters]
    parts = [f"{name}.{part}" for name in names for part in ("lora_A", "lora_B")]
    assert list(found) in (names, names[::-1], parts)
    for layer in found.values():
        assert 0 < layer.mask_mean <= 1
        assert 0 <= layer.suppressed_energy <= 1
        assert -1 <= layer.agreement <= 1
        assert 0 <= layer.rank_energy <= 1 + 1e-12
    assert engine.statistics() == {}


# Alone


def test_a_step_without_micro_batches_does_nothing() -> None:
    model = toy()
    GradientEngine(model, IGA(space="factor")).finish()
    assert all(p.grad is None for p in model.parameters())


def test_a_seed_gives_the_same_gradients() -> None:
    model = llama(r=2)
    method = IGA(space="weight", oversampling=0)
    first, same, other = (
        engine_step(GradientEngine(model, method, seed), model, [BATCH]) for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert difference(other, first) > 1e-9
    assert len(find_adapters(model)) * 2 == len(first)
