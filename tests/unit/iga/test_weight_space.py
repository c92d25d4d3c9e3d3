"""Weight space: one mask of the whole matrix for each backward pass, warm starts from the last."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.invariant import IGA
from poise.iga.weight_space import truncated_svd
from tests.equivalence.iga_gradients import Batch, difference, engine_step, oracle_step
from tests.equivalence.iga_models import llama, toy
from tests.equivalence.iga_reference import base_weight, require_base_gradients

BATCH = Batch.of([2, 0, 1, 0], number=3)
INFO = DomainBatch(BATCH.domains, BATCH.counts)


def test_the_rank_is_the_adapters_own_or_the_settings() -> None:
    model = toy()
    own, same, less = (
        engine_step(
            GradientEngine(model, IGA(space="weight", projection="exact", rank=rank)),
            model,
            [BATCH],
        )
        for rank in (None, 3, 1)
    )
    assert difference(own, same) == 0
    assert difference(less, own) > 1e-2
    assert {torch.linalg.matrix_rank(g).item() for g in less.values()} == {1}


def test_warm_starts_are_kept_by_layer_and_orthonormal() -> None:
    model = llama(r=2).float()
    engine = GradientEngine(model, IGA(space="weight", oversampling=3))
    assert engine.state_dict() == {}
    engine_step(engine, model, [BATCH])
    state = engine.state_dict()
    assert list(state) == [a.name for a in engine.adapters]
    for start in state.values():
        assert start.shape[1] == 5
        torch.testing.assert_close(start.T @ start, torch.eye(5), rtol=0, atol=1e-3)


def test_a_step_without_gradient_keeps_the_projection_alive() -> None:
    """All deltas zero once, as where every token of a step is masked out by the user."""
    model, method = llama(r=2), IGA(space="weight", oversampling=2)
    engine = GradientEngine(model, method)
    with engine.collect(INFO):
        engine.backward(0 * BATCH.losses(model))
    found = engine_step(engine, model, [BATCH])
    expected = oracle_step(model, BATCH, IGA(space="weight", projection="exact", rank=2))
    assert difference(found, expected) < 1.0
    assert all(s.rank_energy > 0 for s in engine.statistics().values())


def test_a_second_backward_pass_is_refused() -> None:
    """Its mask would be that of another gradient."""
    model = toy()
    engine = GradientEngine(model, IGA(space="weight"))
    with pytest.raises(RuntimeError, match="expected one backward pass"), engine.collect(INFO):
        losses = BATCH.losses(model)
        engine.weigh(losses)
        first, *others = (INFO.weights() * losses).unbind()
        first.backward(retain_graph=True)
        sum(others).backward()  # type: ignore[union-attr]


def test_the_projections_of_micro_batches_are_retracted_together() -> None:
    """B'A' = trunc_r(BA - (rate / s) mean_m P_m)."""
    model, rate, micros = toy(), 0.05, [BATCH, Batch.of([1, 0, 2], number=3, seed=4)]
    method = IGA(space="weight", update="retraction", projection="exact", tau=0.0)
    engine = GradientEngine(model, method)
    twin = copy.deepcopy(model)
    adapters = find_adapters(twin)
    require_base_gradients(twin, adapters)
    steps: list[list[Tensor]] = []
    for micro in micros:
        info = DomainBatch(micro.domains, micro.counts)
        loss = (info.weights() * micro.losses(twin)).sum()
        weights = [base_weight(twin, a) for a in adapters]
        steps.append([truncated_svd(g, 3).matrix() for g in torch.autograd.grad(loss, weights)])
        with engine.collect(info):
            engine.backward(micro.losses(model), share=0.5)
    engine.finish(rate)
    for adapter, one, two in zip(engine.adapters, *steps, strict=True):
        down, up = adapter.factors
        new_down, new_up = (
            p.detach() - rate * p.grad for p in adapter.parameters if p.grad is not None
        )
        moved = up @ down - rate / adapter.scaling * (one + two) / 2
        torch.testing.assert_close(new_up @ new_down, truncated_svd(moved, 3).matrix())
