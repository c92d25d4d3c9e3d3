"""The engine in low precision, and with gradients that are not finite."""

from __future__ import annotations

import copy

import pytest
import torch

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import engine_step
from tests.equivalence.iga_models import llama, toy

from .engine_steps import BATCH, every_space, take_step


@pytest.mark.parametrize(
    "method", [IGA(space="weight"), IGA(space="factor")], ids=["weight", "factor"]
)
@pytest.mark.parametrize("is_autocast", [False, True])
def test_bfloat16_is_near_float64(method: IGA, is_autocast: bool) -> None:
    """All weights in bfloat16, or bfloat16 autocast over float32 weights, on a tiny Llama.

    Relative errors over all factors together, against float64 on the same (rounded) weights:
    0.07 in weight space and 0.03 in factor space measured; 0.024 without mask and projection, the
    model's own. Bound: 0.15.
    """
    low = llama().to(torch.bfloat16)
    high = copy.deepcopy(low).double()
    expected = engine_step(GradientEngine(high, method), high, [BATCH])
    if is_autocast:
        low = low.float()
    engine = GradientEngine(low, method)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
        found = engine_step(engine, low, [BATCH])
    dtype = torch.float32 if is_autocast else torch.bfloat16
    assert all(g.dtype == dtype and bool(g.isfinite().all()) for g in found.values())
    assert found.keys() == expected.keys()
    whole, right = (
        torch.cat([g[k].double().flatten() for k in expected]) for g in (found, expected)
    )
    assert (whole - right).norm() < 0.15 * right.norm()


@every_space
def test_what_is_not_finite_reaches_the_gradient_and_leaves_the_next_step_alone(
    method: IGA,
) -> None:
    """A gradient scaler has to see it, and skips the step."""
    model = toy()
    engine, info = GradientEngine(model, method), DomainBatch(BATCH.domains, BATCH.counts)
    with engine.collect(info):
        engine.backward(BATCH.losses(model) * torch.inf)
    engine.finish(0.1)
    assert not all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert all(bool(gradient.isfinite().all()) for gradient in take_step(engine, model))
