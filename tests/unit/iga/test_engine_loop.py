"""What a loop around the engine leaves out, or hands over wrong, is an error and not in silence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from poise.iga.domains import DomainBatch
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_gradients import Batch
from tests.equivalence.iga_models import toy

from .engine_steps import BATCH, OTHER, SPACES, every_space, take_step

UPDATES = {
    "direction": IGA(applied_to="update"),
    "factor": IGA(space="factor", applied_to="update"),
}
OPTIMIZERS = {
    "SGD": partial(optim.SGD, lr=0.1, foreach=False),
    "AdamW": partial(optim.AdamW, lr=0.1, foreach=True),
    "AdamW, fused": partial(optim.AdamW, lr=0.1, fused=True),
}


def info(batch: Batch = BATCH, predicting: Tensor | None = None) -> DomainBatch:
    return DomainBatch(batch.domains, batch.counts, predicting)


def collect(engine: GradientEngine, model: nn.Module, batch: Batch = BATCH) -> None:
    """A micro-batch of two."""
    with engine.collect(info(batch)):
        engine.backward(batch.losses(model), share=0.5)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@every_space
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("to_none", [True, False])
def test_a_step_without_finish_is_refused_at_the_next(
    method: IGA, name: str, to_none: bool
) -> None:
    model = toy()
    engine, optimizer = GradientEngine(model, method), OPTIMIZERS[name](trained(model))
    for batch in (BATCH, OTHER):  # the second goes on with the step
        collect(engine, model, batch)
    optimizer.step()
    optimizer.zero_grad(set_to_none=to_none)
    # Fused kernels may tell torch of no change.
    found = "gradients zeroed|the factors changed" if "fused" in name else "the factors changed"
    with pytest.raises(RuntimeError, match=rf"expected engine.finish\(\).*({found})"):
        collect(engine, model)


@every_space
@pytest.mark.parametrize("to_none", [True, False])
def test_a_step_that_is_dropped_is_finished_too(method: IGA, to_none: bool) -> None:
    """Or its sums would go on into the next."""
    model = toy()
    expected = take_step(GradientEngine(model, method), model, OTHER)
    engine = GradientEngine(model, method)
    collect(engine, model)
    model.zero_grad(to_none)
    with pytest.raises(RuntimeError, match=r"finish\(\).*found its gradients zeroed without it"):
        collect(engine, model, OTHER)
    engine = GradientEngine(model, method)
    collect(engine, model)
    engine.finish(0.1)
    engine.load_state_dict({})  # what it learned of that step
    for found, right in zip(take_step(engine, model, OTHER), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=0)


@pytest.mark.parametrize("space", ["direction", "factor", "weight"])  # a retraction's are zeros
def test_gradients_may_be_changed_between_micro_batches(space: str) -> None:
    """As a loop does that replaces what is not a number."""
    model = toy()
    engine = GradientEngine(model, SPACES[space])
    collect(engine, model)
    for param in trained(model):
        assert param.grad is not None
        param.grad.nan_to_num_()
    collect(engine, model, OTHER)
    engine.finish(0.1)


@every_space
@pytest.mark.parametrize("is_said", [True, False])
def test_a_step_is_begun_anew_after_one_that_broke(method: IGA, is_said: bool) -> None:
    """By an error in its second micro-batch, or by `drop_step`."""
    model = toy()
    expected = take_step(GradientEngine(model, method), model, OTHER)
    engine = GradientEngine(model, method)
    collect(engine, model)
    if is_said:
        engine.drop_step()
    else:
        with pytest.raises(ZeroDivisionError), engine.collect(info()):
            engine.backward(BATCH.losses(model), share=1 / 0)
    if method.space == "weight":
        engine.load_state_dict({})  # the projection's warm start
    for found, right in zip(take_step(engine, model, OTHER), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", UPDATES.values(), ids=UPDATES)
def test_an_optimizer_that_is_followed_takes_no_step_without_finish(method: IGA) -> None:
    model = toy()
    engine, optimizer = GradientEngine(model, method), optim.SGD(trained(model), lr=0.1)
    engine.follow(optimizer)
    collect(engine, model)
    before = [p.detach().clone() for p in trained(model)]
    with pytest.raises(RuntimeError, match=r"finish\(\).*found an optimizer's step without it"):
        optimizer.step()
    assert all(map(torch.equal, trained(model), before))
    engine.finish()
    optimizer.step()
    assert not all(map(torch.equal, trained(model), before))


@pytest.mark.parametrize("method", UPDATES.values(), ids=UPDATES)
def test_an_optimizer_is_followed_by_one_engine(method: IGA) -> None:
    """A second would mask or project the same step again."""
    model = toy()
    optimizer = optim.SGD(trained(model), lr=0.1)
    GradientEngine(model, method).follow(optimizer)
    with pytest.raises(ValueError, match="expected an optimizer that no engine follows, found SGD"):
        GradientEngine(model, method).follow(optimizer)


@every_space
@pytest.mark.parametrize("is_later", [True, False])
def test_a_loss_without_its_backward_in_the_pass_is_refused(method: IGA, is_later: bool) -> None:
    """Later no hook is there: the gradient would be the plain one."""
    model = toy()
    engine = GradientEngine(model, method)
    with pytest.raises(RuntimeError, match="expected the backward pass of the domains' losses"):
        with engine.collect(info()):
            loss = engine.weigh(BATCH.losses(model))
        if is_later:
            loss.backward()


@every_space
def test_a_pass_has_one_loss(method: IGA) -> None:
    model = toy()
    engine = GradientEngine(model, method)
    with (
        pytest.raises(RuntimeError, match="expected one loss in a pass, found a second"),
        engine.collect(info()),
    ):
        engine.backward(BATCH.losses(model), share=0.3)
        engine.backward(OTHER.losses(model), share=0.7)


@pytest.mark.parametrize("is_same_step", [True, False])
@pytest.mark.parametrize("batch", [replace(BATCH, number=4), Batch.of([1, 0], number=2)])
def test_masks_of_factors_are_of_as_many_domains(batch: Batch, is_same_step: bool) -> None:
    """The sums of a step, and of an update's mask those of all steps."""
    model = toy()
    engine, optimizer = GradientEngine(model, UPDATES["factor"]), optim.SGD(trained(model), lr=0.1)
    engine.follow(optimizer)
    collect(engine, model)
    if not is_same_step:
        engine.finish()
        optimizer.step()
    with pytest.raises(ValueError, match=rf"as many domains .*of {batch.number} after 3; give"):
        collect(engine, model, batch)


def test_predicting_is_of_the_tokens_that_the_model_sees() -> None:
    """That of the shifted logits has one less, and would fit no layer."""
    model = toy()
    engine = GradientEngine(model, SPACES["direction"])
    with (
        pytest.raises(ValueError, match=r"predicting: expected tokens .* among \[1, 9\].*found 8"),
        engine.collect(info(predicting=BATCH.predicting[:, :-1])),
    ):
        engine.backward(BATCH.losses(model))


def test_a_batch_may_be_skipped_within_a_pass() -> None:
    """Of which no token is seen, and none learned from."""
    model = toy()
    engine = GradientEngine(model, SPACES["direction"])
    for _ in range(2):
        with engine.collect(info(predicting=BATCH.predicting)):
            pass
    assert engine.state_dict() == {}


@every_space
@pytest.mark.parametrize("number", [3, 8])
def test_domains_are_of_the_batchs_sequences(method: IGA, number: int) -> None:
    model = toy()
    engine = GradientEngine(model, method)
    domains = torch.cat([BATCH.domains] * 2)[:number]
    with (
        pytest.raises(ValueError, match=r"batch = \d.*give `domains` one entry for each sequence"),
        engine.collect(DomainBatch(domains, BATCH.counts)),
    ):
        engine.backward(BATCH.losses(model))


@every_space
@pytest.mark.parametrize(
    ("state", "found"),
    [(None, "tensors by name, found NoneType"), ({"a": 1}, "no such entry, found int")],
)
def test_a_state_that_is_none_is_refused(method: IGA, state: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"state.*: expected {found};"):
        GradientEngine(toy(), method).load_state_dict(state)
