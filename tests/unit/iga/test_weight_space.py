"""Weight space: one mask of the whole matrix for each backward pass, warm starts from the last."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, optim

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
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


def test_a_resumed_engine_goes_on_from_the_layers_warm_starts_bit_for_bit() -> None:
    model, method = llama(r=2).float(), IGA(space="weight", oversampling=2)
    engine, resumed = GradientEngine(model, method), GradientEngine(model, method, seed=7)
    assert engine.state_dict() == {}
    engine_step(engine, model, [BATCH])
    state = {name: value.clone() for name, value in engine.state_dict().items()}
    assert list(state) == [a.name for a in engine.adapters]
    assert all(start.shape[1] == 4 for start in state.values())
    resumed.load_state_dict(state)
    for seed in (1, 2):
        batch = Batch.of([1, 2, 0, 0], number=3, seed=seed)
        one, two = (engine_step(e, model, [batch]) for e in (engine, resumed))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_state_of_another_model_space_or_setting_is_refused() -> None:
    model = toy()
    engine = GradientEngine(model, IGA(space="weight"))
    engine_step(engine, model, [BATCH])
    state = engine.state_dict()
    with pytest.raises(ValueError, match=r"expected shape \(8, 2\) .*found shape \(8, 8\)"):
        GradientEngine(toy(), IGA(space="weight", rank=2, oversampling=0)).load_state_dict(state)
    for other in (
        GradientEngine(llama(), IGA(space="weight")),
        GradientEngine(model, IGA(space="factor")),
        GradientEngine(model, IGA(space="factor", applied_to="update")),
    ):
        with pytest.raises(ValueError, match="expected no such entry"):
            other.load_state_dict(state)


def test_a_step_without_gradient_keeps_the_projection_alive() -> None:
    """All deltas zero once, as where every token of a step is masked out by the user."""
    model, method = llama(r=2), IGA(space="weight", oversampling=2)
    engine = GradientEngine(model, method)
    with engine.collect(INFO):
        engine.backward(0 * BATCH.losses(model))
    engine.finish()
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


@pytest.mark.parametrize("number", [1, 2])
def test_a_plain_step_along_the_retractions_gradient_is_the_truncated_svd(number: int) -> None:
    """B'A' = trunc_r(BA - (rate / s) mean_m P_m), over micro-batches together."""
    model, rate = toy(), 0.05
    micros = [BATCH, Batch.of([1, 0, 2], number=3, seed=4)][:number]
    method = IGA(space="weight", update="retraction", projection="exact", tau=0.0)
    engine, twin = GradientEngine(model, method), copy.deepcopy(model)
    optimizer, adapters = optim.SGD(model.parameters(), lr=rate), find_adapters(twin)
    require_base_gradients(twin, adapters)
    steps: list[list[Tensor]] = []
    for micro in micros:
        info = DomainBatch(micro.domains, micro.counts)
        loss = (info.weights() * micro.losses(twin)).sum()
        gradients = torch.autograd.grad(loss, [base_weight(twin, a) for a in adapters])
        steps.append([left @ right for left, right in (truncated_svd(g, 3) for g in gradients)])
        with engine.collect(info):
            engine.backward(micro.losses(model), share=1 / number)
    engine.finish(rate)
    optimizer.step()
    for old, new, *parts in zip(adapters, engine.adapters, *steps, strict=True):
        (down, up), (new_down, new_up) = old.factors, new.factors
        left, right = truncated_svd(up @ down - rate / old.scaling * sum(parts) / number, 3)
        torch.testing.assert_close(new_up @ new_down, left @ right)


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_a_retraction_without_a_learning_rate_is_refused(rate: float | None) -> None:
    engine = GradientEngine(toy(), IGA(space="weight", update="retraction"))
    with pytest.raises(ValueError, match="expected the learning rate of the step, above 0"):
        engine.finish(rate)
