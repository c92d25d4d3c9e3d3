"""Every optimizer: its step times the multiplier, its moments untouched, its decay exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import optim
from torch.optim import Optimizer

from poise import StepScale

from .optimizer_steps import (
    LAW,
    MULTIPLIERS,
    Factory,
    SignSteps,
    assert_close,
    changes,
    feed,
    parameters,
    run,
    same_state,
    signal,
    twin,
    values,
)

LINEAR: dict[str, Factory] = {
    "SGD": partial(optim.SGD, lr=0.1),
    "SGD, momentum": partial(optim.SGD, lr=0.1, momentum=0.9),
    "SGD, Nesterov": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "SGD, dampening": partial(optim.SGD, lr=0.1, momentum=0.9, dampening=0.3),
    "SGD, maximize": partial(optim.SGD, lr=0.1, momentum=0.9, maximize=True),
    "SGD, fused": partial(optim.SGD, lr=0.1, momentum=0.9, fused=True),
    "AdamW": partial(optim.AdamW, lr=0.1, weight_decay=0),
    "AdamW, AMSGrad": partial(optim.AdamW, lr=0.1, weight_decay=0, amsgrad=True),
    "AdamW, foreach": partial(optim.AdamW, lr=0.1, weight_decay=0, foreach=True),
    "AdamW, fused": partial(optim.AdamW, lr=0.1, weight_decay=0, fused=True),
    "Adam": partial(optim.Adam, lr=0.1),
    "RAdam": partial(optim.RAdam, lr=0.1),
    "NAdam": partial(optim.NAdam, lr=0.1),
    "Adamax": partial(optim.Adamax, lr=0.1),
    "Adagrad": partial(optim.Adagrad, lr=0.1, lr_decay=0.1),
    "RMSprop": partial(optim.RMSprop, lr=0.1),
    "RMSprop, centred, momentum": partial(optim.RMSprop, lr=0.1, centered=True, momentum=0.9),
    "Adadelta": partial(optim.Adadelta, lr=0.5),
    "Muon": partial(optim.Muon, lr=0.1, weight_decay=0),
}


def _asgd(params: Any, lr: float = 0.1) -> Optimizer:
    return optim.ASGD(params, lr=lr, lambd=0.01, t0=2)


INTERPOLATED: dict[str, Factory] = {
    "Rprop": partial(optim.Rprop, lr=0.1),
    "ASGD": _asgd,
    "Adafactor": partial(optim.Adafactor, lr=0.1),
    "a user's": partial(SignSteps, lr=0.3),
}


def _named(cases: dict[str, Any]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("factory", cases.values(), ids=cases.keys())


@_named(LINEAR)
def test_a_change_is_the_multiplier_times_the_plain_one_and_moments_do_not_see_it(
    factory: Factory,
) -> None:
    plain, plain_optimizer, _ = run(factory, MULTIPLIERS, scaled=False)
    scaled, optimizer, _ = run(factory, MULTIPLIERS)
    for rho, found, expected in zip(MULTIPLIERS, changes(scaled), changes(plain), strict=True):
        assert_close(found, [rho * change for change in expected])
    assert same_state(optimizer, plain_optimizer)


@_named(LINEAR | INTERPOLATED)
def test_multiplier_one_is_bitwise_the_plain_run(factory: Factory) -> None:
    plain, plain_optimizer, _ = run(factory, [1.0] * 3, scaled=False)
    scaled, scaled_optimizer, _ = run(factory, [1.0, None, 1.0])
    for a, b in zip(scaled, plain, strict=True):
        assert all(map(torch.equal, a, b))
    assert same_state(scaled_optimizer, plain_optimizer)


@_named(LINEAR | INTERPOLATED)
def test_rates_and_decays_are_restored_after_every_step(factory: Factory) -> None:
    fresh = factory(parameters()).param_groups[0]
    _, optimizer, _ = run(factory, MULTIPLIERS)
    for key in ("lr", "weight_decay"):
        assert optimizer.param_groups[0].get(key) == fresh.get(key)


@_named(INTERPOLATED)
def test_other_optimizers_go_the_multiplier_of_the_way(factory: Factory) -> None:
    params = parameters()
    optimizer = factory(params)
    scale = StepScale(optimizer, LAW)
    for step, rho in enumerate(MULTIPLIERS):
        before = values(params)
        twins, plain = twin(factory, params, optimizer)
        for run_params, run_optimizer in ((params, optimizer), (twins, plain)):
            if run_optimizer is optimizer:
                scale.observe(signal(rho))
            feed(run_params, step)
            run_optimizer.step()
        expected = [b + rho * (t - b) for b, t in zip(before, values(twins), strict=True)]
        assert_close(values(params), expected)
        assert same_state(optimizer, plain)


@pytest.mark.parametrize("factory", [LINEAR["Adam"], INTERPOLATED["Adafactor"]])
def test_a_closure_sees_the_weights_of_before_the_step(factory: Factory) -> None:
    """And so it makes the step that a gradient from outside would make."""
    results = []
    for has_closure in (False, True):
        params = parameters()
        optimizer = factory(params)
        scale = StepScale(optimizer, LAW)
        for step, rho in enumerate((0.5, 7.0)):
            scale.observe(signal(rho))
            look = partial(_squares, params, step)
            if has_closure:
                optimizer.step(look)
            else:
                look()
                optimizer.step()
        results.append(values(params))
    assert all(map(torch.equal, *results))


def _squares(params: list[Any], step: int) -> float:
    for param in params:
        param.grad = (param.detach() - step) ** 3
    return 0.0


def test_a_signal_that_a_closure_observes_is_refused() -> None:
    """It would count for the step after."""
    params = parameters()
    optimizer = optim.SGD(params, lr=0.1)
    scale = StepScale(optimizer, LAW)
    feed(params, 0)

    def closure() -> float:
        scale.observe(signal(3.0))
        return 0.0

    with pytest.raises(RuntimeError, match=r"expected a step's signal before optimizer.step\(\)"):
        optimizer.step(closure)


def test_sparse_adam_is_scaled_too() -> None:
    results = []
    for rho in (1.0, 3.0):
        param = torch.nn.Parameter(torch.ones(4, 2, dtype=torch.float64))
        optimizer = optim.SparseAdam([param], lr=0.1)
        StepScale(optimizer, LAW).observe(signal(rho))
        rows, ones = torch.tensor([[0, 2]]), torch.ones(2, 2, dtype=torch.float64)
        param.grad = torch.sparse_coo_tensor(rows, ones, (4, 2), check_invariants=True)
        optimizer.step()
        results.append(param.detach() - 1)
    assert_close([results[1]], [3.0 * results[0]])


# Weight decay that is not part of the gradient


DECAYED: dict[str, Callable[..., Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1),
    "AdamW": partial(optim.AdamW, lr=0.1),
    "Adam, decoupled": partial(optim.Adam, lr=0.1, decoupled_weight_decay=True),
    "RAdam, decoupled": partial(optim.RAdam, lr=0.1, decoupled_weight_decay=True),
    "NAdam, decoupled": partial(optim.NAdam, lr=0.1, decoupled_weight_decay=True),
    "Muon": partial(optim.Muon, lr=0.1),
    "Adafactor": partial(optim.Adafactor, lr=0.1),
}


@pytest.mark.parametrize("is_scaled", [False, True])
@_named(DECAYED)
def test_decay_keeps_its_size_unless_it_is_to_be_scaled(
    factory: Callable[..., Optimizer], is_scaled: bool
) -> None:
    rate, decay, rho = 0.1, 0.2, 0.25
    start = parameters()
    (before, undecayed), _, _ = run(partial(factory, weight_decay=0), [1.0], scaled=False)
    (_, found), _, _ = run(
        partial(factory, weight_decay=decay), [rho], scale_weight_decay=is_scaled
    )
    kept = 1 - rate * decay * (rho if is_scaled else 1.0)
    expected = [
        kept * p.detach() + rho * (u - b) for p, u, b in zip(start, undecayed, before, strict=True)
    ]
    assert_close(found, expected)


def test_a_users_decoupled_decay_is_scaled_on_request() -> None:
    factory = partial(SignSteps, lr=0.3, weight_decay=0.2)
    (before, plain), _, _ = run(factory, [1.0], scaled=False)
    (_, found), _, _ = run(factory, [0.5], scale_weight_decay=True)
    assert_close(found, [b + 0.5 * (p - b) for b, p in zip(before, plain, strict=True)])


COUPLED: dict[str, Factory] = {
    "SGD": partial(optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "Adam": partial(optim.Adam, lr=0.1, weight_decay=0.1),
    "RAdam": partial(optim.RAdam, lr=0.1, weight_decay=0.1),
    "NAdam": partial(optim.NAdam, lr=0.1, weight_decay=0.1),
    "Adamax": partial(optim.Adamax, lr=0.1, weight_decay=0.1),
    "Adagrad": partial(optim.Adagrad, lr=0.1, weight_decay=0.1),
    "RMSprop": partial(optim.RMSprop, lr=0.1, weight_decay=0.1),
    "Adadelta": partial(optim.Adadelta, lr=0.1, weight_decay=0.1),
    "ASGD": partial(optim.ASGD, lr=0.1, weight_decay=0.1),
}


@_named(COUPLED)
def test_decay_that_enters_the_moments_is_refused(factory: Factory) -> None:
    name = type(factory(parameters())).__name__
    message = rf"{name} adds weight decay \(0.1\) to the gradient.*scale_weight_decay=True"
    with pytest.raises(ValueError, match=message):
        StepScale(factory(parameters()), LAW)


@_named(COUPLED)
def test_decay_that_enters_the_moments_may_be_scaled_with_them(factory: Factory) -> None:
    (before, plain), _, _ = run(factory, [1.0], scaled=False)
    (_, found), _, _ = run(factory, [0.5], scale_weight_decay=True)
    assert_close(found, [b + 0.5 * (p - b) for b, p in zip(before, plain, strict=True)])
