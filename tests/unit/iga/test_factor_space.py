"""Factor space: sums by domain over a step, one mask at its end."""

from __future__ import annotations

import torch

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch, difference, engine_step, oracle_step
from tests.equivalence.iga_models import toy

METHOD = IGA(space="factor")
BATCH = Batch.of([2, 0, 1, 0], number=3)
INFO = DomainBatch(BATCH.domains, BATCH.counts)


def test_statistics_are_of_each_trained_factor() -> None:
    model = toy()
    model.base_model.model.other.lora_A["default"].weight.requires_grad_(False)
    engine = GradientEngine(model, METHOD)
    engine_step(engine, model, [BATCH])
    found = engine.statistics()
    assert [name.removeprefix("base_model.model.") for name in found] == [
        "inner.lora_A",
        "inner.lora_B",
        "other.lora_B",
    ]
    assert all(layer.rank_energy == 1 for layer in found.values())


def test_until_the_end_of_the_step_gradients_are_the_plain_ones() -> None:
    """So that a reducer of ranks has what it expects; the end writes over them in place."""
    model = toy()
    parameters = [p for p in model.parameters() if p.requires_grad]
    (INFO.weights() * BATCH.losses(model)).sum().backward()
    plain = [p.grad.clone() for p in parameters if p.grad is not None]
    model.zero_grad()
    engine = GradientEngine(model, METHOD)
    with engine.collect(INFO):
        engine.backward(BATCH.losses(model))
    places = [p.grad.data_ptr() for p in parameters if p.grad is not None]
    for parameter, gradient in zip(parameters, plain, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    engine.finish()
    assert [p.grad.data_ptr() for p in parameters if p.grad is not None] == places
    assert not any(torch.equal(p.grad, g) for p, g in zip(parameters, plain, strict=True))  # type: ignore[arg-type]


def test_a_step_forgets_the_one_before() -> None:
    model = toy()
    engine = GradientEngine(model, METHOD)
    engine_step(engine, model, [Batch.of([1, 1, 2], number=3, seed=5)])
    found = engine_step(engine, model, [BATCH])
    assert difference(found, oracle_step(model, BATCH, METHOD)) < 1e-10


def test_sums_of_bfloat16_gradients_are_kept_in_float32() -> None:
    """Sixteen micro-batches are as near to float64 as one is."""
    model = toy().to(torch.bfloat16)
    exact = toy().to(torch.bfloat16).double()
    batch = Batch.of([0, 1, 2, 0] * 4, number=3)
    method = IGA(space="factor", scale="layer", tau=0.1)
    expected = oracle_step(exact, batch, method)
    for parts in ([batch], [batch.rows(i, i + 1) for i in range(16)]):
        found = engine_step(GradientEngine(model, method), model, parts)
        doubles = {name: gradient.double() for name, gradient in found.items()}
        assert difference(doubles, expected) < 0.1
