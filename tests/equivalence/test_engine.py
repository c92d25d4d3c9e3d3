"""One backward pass gives what K backward passes give, to 1e-10 in float64."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import (
    Batch,
    Gradients,
    difference,
    engine_step,
    named,
    oracle_step,
)
from tests.equivalence.iga_models import MODELS, checkpointed, llama, toy
from tests.equivalence.iga_toys import SharedCheckpointed, SharedReentrant, Unused
from tests.exact import in_float64
from tests.grids import grid

METHODS = {
    "weight, snr, exact": IGA(space="weight", projection="exact"),
    "weight, layer, exact, rank 2": IGA(
        space="weight", projection="exact", scale="layer", rank=2, tau=0.3
    ),
    "weight, none, no projection": IGA(space="weight", projection="none", scale="none", tau=1e3),
    "weight, snr, no projection": IGA(space="weight", projection="none", eps=1e-3),
    "weight, no mask, exact": IGA(space="weight", projection="exact", tau=0.0),
    "factor, snr": IGA(space="factor"),
    "factor, layer": IGA(space="factor", scale="layer", tau=2.0),
    "factor, none": IGA(space="factor", scale="none", tau=10.0),
}
# Domains in no order, one alone, one missing (of four), one with a single sequence.
MIXED = Batch.of([2, 0, 1, 0, 2, 0], number=4)
every_mask = pytest.mark.parametrize("space", ["weight", "factor"])


def _difference(
    device: torch.device, model: Any, method: IGA, batch: Batch, by_tokens: bool = False
) -> float:
    model, batch = model.to(device), batch.to(device)
    with in_float64():
        found = engine_step(GradientEngine(model, method), model, [batch], by_tokens)
        expected = oracle_step(model, batch, method, by_tokens)
    assert any(bool(gradient.any()) for gradient in expected.values())
    return difference(found, expected)


CASES = [(model, method) for method in METHODS for model in MODELS]
# T5 takes as long as ten others.
MOST = [model for model in MODELS if model != "t5: encoder and decoder"]
QUICK = [("llama", method) for method in METHODS]
QUICK += [(model, method) for method in ("weight, snr, exact", "factor, snr") for model in MOST]


@pytest.mark.parametrize(("model", "method"), grid(CASES, QUICK))
def test_the_engine_is_the_reference(model: str, method: str, device: torch.device) -> None:
    assert _difference(device, MODELS[model](), METHODS[method], MIXED) < 1e-10


@pytest.mark.parametrize(
    "method", ["weight, snr, exact", "weight, none, no projection", "factor, snr"]
)
@pytest.mark.parametrize("by_tokens", [False, True])
@pytest.mark.parametrize(
    ("domains", "number"),
    [([0, 0, 0], 1), ([1, 0, 1], 2), ([3, 4, 1, 0, 2, 4, 3], 5), ([2, 2, 2], 5), ([5, 1], 7)],
)
def test_any_number_of_domains_with_any_weights(
    domains: list[int], number: int, by_tokens: bool, method: str, device: torch.device
) -> None:
    batch = Batch.of(domains, number)
    assert _difference(device, toy(), METHODS[method], batch, by_tokens) < 1e-10


@every_mask
@pytest.mark.parametrize("use_reentrant", [None, False, True])
def test_dropout_is_that_of_plain_fine_tuning(space: Any, use_reentrant: bool | None) -> None:
    """The engine draws no random number of the model's, and sees inputs after dropout."""
    build = llama if use_reentrant is None else partial(checkpointed, use_reentrant)
    model = build(lora_dropout=0.3).train()
    engine = GradientEngine(model, IGA(space=space, tau=0.0, projection="none"))
    with in_float64():
        torch.manual_seed(1)
        expected = _plain_step(model, MIXED)
        torch.manual_seed(1)
        found = engine_step(engine, model, [MIXED])
        torch.manual_seed(2)
        other = engine_step(engine, model, [MIXED])
    assert difference(found, expected) < 1e-12
    assert difference(other, expected) > 1e-2


def _plain_step(model: Any, batch: Batch, by_tokens: bool = False) -> Gradients:
    model.zero_grad()
    weights = DomainBatch(batch.domains, batch.counts).weights("tokens" if by_tokens else "equal")
    losses = batch.losses(model)
    (weights.to(losses) * losses).sum().backward()
    adapters = find_adapters(model)
    return named(adapters, [tuple(p.grad.clone() for p in a.parameters) for a in adapters])


# Micro-batches

SET = Batch.of([2, 0, 1, 0, 2, 0, 1, 1], number=4)


@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.space == "weight"])
@pytest.mark.parametrize("by_tokens", [False, True])
def test_micro_batches_in_weight_space_are_the_mean_of_their_own_masked_gradients(
    by_tokens: bool, method: IGA, device: torch.device
) -> None:
    model, whole = toy().to(device), SET.to(device)
    parts = [whole.rows(0, 3), whole.rows(3, 6), whole.rows(6, 8)]
    found = engine_step(GradientEngine(model, method), model, parts, by_tokens)
    each = [oracle_step(model, part, method, by_tokens) for part in parts]
    mean = {name: torch.stack([e[name] for e in each]).mean(0) for name in each[0]}
    assert difference(found, mean) < 1e-10


@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.space == "factor"])
@pytest.mark.parametrize("cuts", [[1, 2, 3, 4, 5, 6, 7], [2, 3]])
@pytest.mark.parametrize("by_tokens", [False, True])
def test_micro_batches_in_factor_space_are_one_batch(
    by_tokens: bool, cuts: list[int], method: IGA, device: torch.device
) -> None:
    """With token counts that differ and domains that are missing from most of them."""
    model, whole = toy().to(device), SET.to(device)
    parts = [whole.rows(a, b) for a, b in pairwise([0, *cuts, len(SET.ids)])]
    found = engine_step(GradientEngine(model, method), model, parts, by_tokens)
    assert difference(found, oracle_step(model, whole, method, by_tokens)) < 1e-10


@every_mask
def test_a_share_scales_the_gradient(space: Any) -> None:
    """So that a gradient scaler's factor comes out as it went in."""
    model, method = toy(), IGA(space=space, projection="exact")
    once, scaled = (
        engine_step(GradientEngine(model, method), model, [SET], shares=[share])
        for share in (1.0, 1024.0)
    )
    assert difference(scaled, {name: 1024 * g for name, g in once.items()}) < 1e-12


def test_warm_starts_bring_the_randomised_projection_to_the_exact_one() -> None:
    model = llama("q_proj", "down_proj", config={"num_hidden_layers": 1})
    engine = GradientEngine(model, IGA(space="weight", rank=2, oversampling=4))
    steps = [engine_step(engine, model, [MIXED]) for _ in range(40)]
    expected = oracle_step(model, MIXED, IGA(space="weight", projection="exact", rank=2))
    errors = [difference(step, expected) for step in steps]
    assert errors[-1] < 0.1 * errors[0]
    assert errors[-1] < 1e-3


# What cannot be masked as one


@every_mask
def test_a_shared_layer_under_reentrant_checkpointing(space: Any) -> None:
    """Its gradient comes in parts, which factor space adds up, and weight space refuses."""
    model, method = toy(SharedReentrant), IGA(space=space, projection="exact")
    if space == "factor":
        found = engine_step(GradientEngine(model, method), model, [MIXED])
        expected = oracle_step(toy(SharedCheckpointed), MIXED, method)
        assert difference(found, expected) < 1e-10
    else:
        with pytest.raises(RuntimeError, match=r"inner: expected one backward pass.*use_reentrant"):
            engine_step(GradientEngine(model, method), model, [MIXED])


@every_mask
def test_other_parameters_keep_their_plain_gradient(space: Any) -> None:
    model = toy(bias="all", modules_to_save=["head"])
    engine = GradientEngine(model, IGA(space=space))
    _plain_step(model, MIXED)
    is_factor = {id(p) for a in engine.adapters for p in a.parameters}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in is_factor]
    expected = [p.grad.clone() for p in others]
    engine_step(engine, model, [MIXED])
    assert len(others) >= 4  # biases of three layers, weight of the head
    for parameter, gradient in zip(others, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@every_mask
def test_a_layer_that_is_not_used_has_no_gradient(space: Any) -> None:
    """As in plain training, where weight decay leaves it alone."""
    model = toy(Unused)
    engine = GradientEngine(model, IGA(space=space))
    engine_step(engine, model, [MIXED])
    grads = {a.name.rsplit(".", 1)[-1]: [p.grad for p in a.parameters] for a in engine.adapters}
    assert grads["other"] == [None, None]
    assert all(g is not None for g in grads["inner"])
