"""Masks and directions that act on the optimizer's steps, against their formulas in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, optim

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch, engine_step
from tests.equivalence.iga_models import llama, toy
from tests.exact import in_float64

BATCHES = [Batch.of([2, 0, 1, 0, 2, 1], number=3, seed=seed) for seed in range(5)]
MASK = IGA(space="factor", tau=2.0, applied_to="update")
DIRECTIONS = IGA(space="direction", applied_to="update")
OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "AdamW": lambda p: optim.AdamW(p, lr=1e-2, weight_decay=0.1),
}


def trained(model: Any) -> list[Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


def values(model: Any) -> list[Tensor]:
    return [p.detach().clone() for p in trained(model)]


def factors(engine: GradientEngine) -> list[Tensor]:
    return [p for a in engine.adapters for p in a.parameters]


def per_domain(model: Any, engine: GradientEngine, batch: Batch) -> list[Tensor]:
    """Factor by factor, the gradients of the domains, (K, ...)."""
    losses = batch.losses(model)
    found = [torch.autograd.grad(x, factors(engine), retain_graph=True) for x in losses]
    return [torch.stack(each) for each in zip(*found, strict=True)]


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    with in_float64():
        yield


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_masked_step_is_the_formula(kind: str) -> None:
    model = llama("q_proj", "down_proj", config={"num_hidden_layers": 1})
    engine = GradientEngine(model, MASK)
    optimizer = OPTIMIZERS[kind](trained(model))
    engine.follow(optimizer)
    engine.follow(optimizer)  # once
    twin = [p.detach().clone().requires_grad_() for p in factors(engine)]
    other, sums = OPTIMIZERS[kind](twin), None
    for place, batch in enumerate(BATCHES):
        gradients = per_domain(model, engine, batch)
        engine_step(engine, model, [batch])
        old = values(model)
        optimizer.step()
        # The twin takes the plain step, from the same place, with moments of its own.
        with torch.no_grad():
            for p, value, parts in zip(twin, old, gradients, strict=True):
                p.copy_(value)
                p.grad = parts.mean(0)
        other.step()
        old_sums = sums or [torch.zeros_like(g) for g in gradients]
        sums = [0.9 * s + g for s, g in zip(old_sums, gradients, strict=True)]
        count = sum(0.9**i for i in range(place + 1))
        for now, before, moved, total in zip(factors(engine), old, twin, sums, strict=True):
            means = total / count
            mean, variance = means.mean(0), means.var(0, correction=0)
            scale = mean**2 + MASK.eps * (mean**2).mean()
            mask = (-MASK.tau * variance / scale).exp().clamp_min(torch.finfo(mean.dtype).eps)
            step = moved.detach() - before
            masked = mask * step
            longer = min(float(step.norm() / masked.norm()), 10.0)
            torch.testing.assert_close(
                now.detach() - before, longer * masked, rtol=1e-9, atol=1e-15
            )


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_stays_off_the_directions(kind: str) -> None:
    model = llama(config={"num_hidden_layers": 1})
    engine = GradientEngine(model, DIRECTIONS)
    optimizer = OPTIMIZERS[kind](trained(model))
    engine.follow(optimizer)
    soft = GradientEngine(model, IGA(space="direction"))
    for place, batch in enumerate(BATCHES):
        if place:  # A is off the directions of this step, so that nothing is to be taken out of dB
            soft.load_state_dict(engine.state_dict())
            expected = engine_step(soft, model, [batch])
        found = engine_step(engine, model, [batch])
        if place:
            for name, gradient in expected.items():
                torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)
        optimizer.step()
        for layer in engine._space._layers:
            assert layer.basis is not None
            down = layer.down.detach()
            assert float((down @ layer.basis).norm() / down.norm()) < 1e-12


@pytest.mark.parametrize("is_frozen", [True, False])
def test_b_is_projected_where_a_was_not_moved_off(is_frozen: bool) -> None:
    """A frozen A stays as it is; and after a skipped step the directions are new, and A is old."""
    model = toy()
    for name, parameter in model.named_parameters():
        if is_frozen and "lora_A" in name:
            parameter.requires_grad_(False)
    hard, soft = GradientEngine(model, DIRECTIONS), GradientEngine(model, IGA(space="direction"))
    optimizer = optim.SGD(trained(model), lr=0.0)
    hard.follow(optimizer)
    before = [a.down.weight.clone() for a in hard.adapters]
    for batch in BATCHES[:3]:
        found, expected = (engine_step(e, model, [batch]) for e in (hard, soft))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        if is_frozen:
            optimizer.step()
    assert all(torch.equal(a.down.weight, b) for a, b in zip(hard.adapters, before, strict=True))


@pytest.mark.parametrize("method", [MASK, DIRECTIONS])
def test_it_goes_on_where_it_was_saved(method: IGA) -> None:
    ends = []
    for cut in (None, 2):
        model = toy()
        engine = GradientEngine(model, method)
        optimizer = optim.AdamW(trained(model), lr=1e-2)
        engine.follow(optimizer)
        for place, batch in enumerate(BATCHES):
            if place == cut:
                state = engine.state_dict()
                engine = GradientEngine(model, method)
                engine.load_state_dict({k: v.clone() for k, v in state.items()})
                fresh = optim.AdamW(trained(model), lr=1e-2)
                fresh.load_state_dict(optimizer.state_dict())
                optimizer = fresh
                engine.follow(optimizer)
            engine_step(engine, model, [batch])
            optimizer.step()
        ends.append(values(model))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_an_engine_that_follows_nobody_says_so() -> None:
    model = toy()
    engine = GradientEngine(model, DIRECTIONS)
    batch = BATCHES[0]
    with engine.collect(DomainBatch(batch.domains, batch.counts)):
        engine.backward(batch.losses(model))
    with pytest.raises(RuntimeError, match=r"engine\.follow"):
        engine.finish()
    with pytest.raises(TypeError, match="no step hooks"):
        engine.follow(object())  # type: ignore[arg-type]


def test_a_step_that_is_skipped_leaves_no_trace() -> None:
    """As a gradient scaler skips it, for gradients that are not finite."""
    infinite = torch.full((3, sum(p.numel() for p in trained(toy()))), torch.inf)
    ends = []
    for skips in (False, True):
        model = toy()
        engine = GradientEngine(model, MASK)
        optimizer = optim.AdamW(trained(model), lr=1e-2)
        engine.follow(optimizer)
        for place, batch in enumerate(BATCHES):
            engine_step(engine, model, [batch])
            optimizer.step()
            if skips and place == 1:
                engine._space._pending = infinite, [0, 1, 2], 3
        ends.append(values(model))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_two_optimizers_are_followed_and_one_only_once() -> None:
    model = toy()
    engine = GradientEngine(model, MASK)
    first = optim.SGD([a.down.weight for a in engine.adapters], lr=0.1)
    second = optim.SGD([a.up.weight for a in engine.adapters], lr=0.1)
    for optimizer in (first, second, first):
        engine.follow(optimizer)
    assert [len(o._optimizer_step_pre_hooks) for o in (first, second)] == [1, 1]
    whole = toy()
    other = GradientEngine(whole, MASK)
    both = optim.SGD(trained(whole), lr=0.1)
    other.follow(both)
    for batch in BATCHES[:3]:
        engine_step(engine, model, [batch])
        first.step()
        second.step()
        engine_step(other, whole, [batch])
        both.step()
    for a, b in zip(factors(engine), factors(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_a_domain_that_stays_away_is_forgotten() -> None:
    model = toy()
    engine = GradientEngine(model, MASK)
    optimizer = optim.SGD(trained(model), lr=0.0)
    engine.follow(optimizer)
    engine_step(engine, model, BATCHES[:1])
    optimizer.step()
    for _ in range(80):
        engine_step(engine, model, [Batch.of([1, 1], number=3, seed=1)])
        optimizer.step()
    assert [steps > 1e-3 for steps in engine.state_dict()["steps"].tolist()] == [False, True, False]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (lambda state: {"running": state["running"]}, "'running' of 3"),
        (lambda state: {"steps": state["steps"]}, "'steps' of 3"),
        (lambda state: state | {"steps": state["steps"][:2]}, "'running' of 3, 'steps' of 2"),
    ],
)
def test_a_part_of_a_masks_state_is_refused(part: Any, found: str) -> None:
    model = toy()
    engine = GradientEngine(model, MASK)
    optimizer = optim.AdamW(trained(model), lr=1e-2)
    engine.follow(optimizer)
    engine_step(engine, model, [BATCHES[0]])
    optimizer.step()
    state = engine.state_dict()
    with pytest.raises(ValueError, match=f"of as many domains, found {found};"):
        engine.load_state_dict(part(state))
    engine.load_state_dict({})  # of a run that has not begun
    assert engine.state_dict() == {}
