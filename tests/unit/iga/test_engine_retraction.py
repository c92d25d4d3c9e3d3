"""A plain step along the gradients of a retraction is the retraction."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import optim

from poise.iga.adapters import find_adapters
from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.invariant import IGA
from poise.iga.weight_space import truncated_svd
from tests.equivalence.iga_models import toy
from tests.equivalence.iga_reference import base_weight, require_base_gradients

from .engine_steps import BATCH


def test_a_plain_step_along_the_retractions_gradient_is_the_truncated_svd() -> None:
    model, rate = toy(), 0.05
    engine = GradientEngine(
        model, IGA(space="weight", update="retraction", projection="exact", tau=0.0)
    )
    optimizer, info = (
        optim.SGD(model.parameters(), lr=rate),
        DomainBatch(BATCH.domains, BATCH.counts),
    )
    twin = copy.deepcopy(model)
    adapters = find_adapters(twin)
    require_base_gradients(twin, adapters)
    (info.weights() * BATCH.losses(twin)).sum().backward()
    with engine.collect(info):
        engine.backward(BATCH.losses(model))
    engine.finish(rate)
    optimizer.step()
    for old, new in zip(adapters, engine.adapters, strict=True):
        gradient = base_weight(twin, old).grad
        assert gradient is not None
        (down, up), (new_down, new_up) = old.factors, new.factors
        moved = up @ down - rate / old.scaling * truncated_svd(gradient, 3).matrix()
        torch.testing.assert_close(new_up @ new_down, truncated_svd(moved, 3).matrix())


@pytest.mark.parametrize("rate", [None, 0.0, -1.0])
def test_a_retraction_without_a_learning_rate_is_refused(rate: float | None) -> None:
    engine = GradientEngine(toy(), IGA(space="weight", update="retraction"))
    with pytest.raises(ValueError, match="expected the learning rate of the step, above 0"):
        engine.finish(rate)
