"""Batches for a toy model, and a step of the engine on it."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch

BATCH = Batch.of([2, 0, 1, 0], number=3)
OTHER = Batch.of([1, 2, 0, 0], number=3, seed=1)
MASKS = {
    "weight": IGA(space="weight"),
    "factor": IGA(space="factor"),
    "retraction": IGA(space="weight", update="retraction"),
}
SPACES = MASKS | {"direction": IGA()}
every_mask = pytest.mark.parametrize("method", MASKS.values(), ids=MASKS)
every_space = pytest.mark.parametrize("method", SPACES.values(), ids=SPACES)


def count_hooks(model: nn.Module) -> int:
    """Hooks on modules and parameters."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    on_modules = sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)
    return on_modules + sum(len(p._backward_hooks or ()) for p in model.parameters())


def take_step(engine: GradientEngine, model: nn.Module, batch: Batch = BATCH) -> list[Tensor]:
    """A step of the engine's, and the gradients it leaves."""
    model.zero_grad()
    with engine.collect(DomainBatch(batch.domains, batch.counts)):
        engine.backward(batch.losses(model))
    engine.finish(learning_rate=0.1)
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]
