"""The engine takes its hooks away, also after an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_models import toy
from tests.equivalence.iga_toys import Bypassed, BypassedInPart, Routed, Unused

from .engine_steps import BATCH, OTHER, count_hooks, every_space, take_step


@every_space
def test_hooks_are_gone_after_a_step(method: IGA) -> None:
    model = toy()
    engine = GradientEngine(model, method)
    assert count_hooks(model) == 0
    with engine.collect(DomainBatch(BATCH.domains, BATCH.counts)):
        assert count_hooks(model) > 0
    take_step(engine, model)
    assert count_hooks(model) == 0


class Fails(Exception):
    pass


def _in_forward(engine: GradientEngine, model: nn.Module) -> None:
    def fail(*args: Any) -> None:
        raise Fails

    handle = model.get_submodule("base_model.model.other.lora_B.default").register_forward_hook(
        fail
    )
    try:
        BATCH.losses(model)
    finally:
        handle.remove()


def _in_backward(engine: GradientEngine, model: nn.Module) -> None:
    class Breaks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise Fails

    # After "other" has had its gradient, before "inner".
    inner = model.get_submodule("base_model.model.inner")
    handle = inner.register_forward_hook(lambda module, args, output: Breaks.apply(output))
    try:
        engine.backward(BATCH.losses(model))
    finally:
        handle.remove()


def _in_users_code(engine: GradientEngine, model: nn.Module) -> None:
    engine.backward(BATCH.losses(model))
    raise Fails


@every_space
@pytest.mark.parametrize("failing", [_in_forward, _in_backward, _in_users_code])
def test_an_exception_leaves_no_hooks_and_the_next_step_is_right(
    method: IGA, failing: Callable[[GradientEngine, nn.Module], None]
) -> None:
    model = toy()
    expected = take_step(GradientEngine(model, method), model, OTHER)
    engine = GradientEngine(model, method)
    with pytest.raises(Fails), engine.collect(DomainBatch(BATCH.domains, BATCH.counts)):
        failing(engine, model)
    assert count_hooks(model) == 0
    engine.load_state_dict({})  # a warm start may have moved
    for found, right in zip(take_step(engine, model, OTHER), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=0)


@every_space
def test_a_layer_whose_modules_are_passed_over_is_refused_by_name(method: IGA) -> None:
    """Or it would be trained plainly, or not at all, in silence."""
    model = toy(Bypassed)
    engine = GradientEngine(model, method)
    with pytest.raises(RuntimeError, match=r"inner.*: expected its inputs before its gradient"):
        take_step(engine, model)
    assert count_hooks(model) == 0


@pytest.mark.parametrize("space", ["factor", "weight"])
def test_a_layer_that_is_passed_over_in_one_segment_is_refused(space: Any) -> None:
    model = toy(BypassedInPart)
    engine = GradientEngine(model, IGA(space=space))
    with pytest.raises(RuntimeError, match="expected its inputs before its gradient"):
        take_step(engine, model)


@every_space
def test_a_forward_pass_before_the_step_is_refused(method: IGA) -> None:
    model = toy()
    engine, losses = GradientEngine(model, method), BATCH.losses(model)
    info = DomainBatch(BATCH.domains, BATCH.counts)
    with pytest.raises(RuntimeError, match=r"within `collect`"), engine.collect(info):
        engine.backward(losses)


@every_space
def test_factors_that_are_added_with_zero_are_unused(method: IGA) -> None:
    model = toy(Unused)
    engine, info = GradientEngine(model, method), DomainBatch(BATCH.domains, BATCH.counts)
    factors = [p for a in engine.adapters for p in a.parameters]
    with engine.collect(info):
        unused = sum(0 * p.sum() for p in factors)
        engine.backward(BATCH.losses(model) + unused)
    engine.finish(0.1)
    grads = {a.name.rsplit(".", 1)[-1]: [p.grad for p in a.parameters] for a in engine.adapters}
    assert not any(bool(g.any()) for g in grads["other"] if g is not None)
    assert len(engine.statistics()) in (1, 2, 4)


@every_space
def test_routed_tokens_are_refused_though_the_batch_divides_them(method: IGA) -> None:
    model = toy(Routed)
    engine = GradientEngine(model, method)
    with pytest.raises(
        ValueError, match=r"inner.*: expected .* tokens per sequence among \[1, 9\]"
    ):
        take_step(engine, model)
    assert count_hooks(model) == 0


@every_space
def test_packed_rows_are_refused_in_the_backward_pass(method: IGA) -> None:
    model = toy()
    engine = GradientEngine(model, method)
    packed = DomainBatch(torch.tensor([0, 1, 0]), torch.tensor([9, 9]))
    with (
        pytest.raises(ValueError, match=r"expected inputs of shape \(batch = 3.*packing"),
        engine.collect(packed),
    ):
        engine.backward(model(torch.randint(2, 20, (1, 27))).square().mean().expand(2))
    assert count_hooks(model) == 0


@every_space
def test_a_loss_that_the_engine_has_not_made_is_refused(method: IGA) -> None:
    """Nobody would know by what its domains weigh."""
    model = toy()
    engine = GradientEngine(model, method)
    with (
        pytest.raises(RuntimeError, match=r"call engine\.backward\(losses, weights\)"),
        engine.collect(DomainBatch(BATCH.domains, BATCH.counts)),
    ):
        BATCH.losses(model).sum().backward()
    with pytest.raises(RuntimeError, match="within `collect`, found none"):
        engine.backward(BATCH.losses(model))
    assert count_hooks(model) == 0
