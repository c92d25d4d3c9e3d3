"""The multiplier lives for one step: rates, decays and hooks are as they were after it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import optim

from poise import StepScale
from poise.pgpo.viscosity import Viscosity

from .optimizer_steps import (
    LAW,
    SignSteps,
    assert_close,
    parameters,
    plain_change,
    run,
    scaled_sgd,
    signal,
    take_step,
    times,
    values,
)

# Rates


def test_the_scheduler_neither_sees_nor_is_changed_by_the_multiplier() -> None:
    rates: dict[bool, list[float]] = {}
    for is_scaled in (False, True):
        params = parameters()
        optimizer = optim.AdamW(params, lr=0.1)
        scale = StepScale(optimizer, LAW) if is_scaled else None
        scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=5)
        rates[is_scaled] = []
        for step, rho in enumerate((0.5, 3.0, 1.0, 0.1)):
            if scale:
                scale.observe(signal(rho))
            take_step(optimizer, params, step)
            rates[is_scaled].append(optimizer.param_groups[0]["lr"])
            scheduler.step()
            rates[is_scaled] += scheduler.get_last_lr()
    assert rates[True] == rates[False]


@pytest.mark.parametrize(
    "factory",
    [
        partial(optim.SGD, foreach=False),
        partial(optim.AdamW, foreach=False, weight_decay=0.1),
        partial(optim.AdamW, fused=True, weight_decay=0.1),
    ],
    ids=["SGD", "AdamW", "AdamW, fused"],
)
def test_a_rate_that_is_a_tensor_works_and_stays_the_same_tensor(factory: Any) -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    with_tensor = parameters()
    optimizer = factory(with_tensor, lr=rate)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    scale = StepScale(optimizer, LAW)
    expected, _, _ = run(partial(factory, lr=0.1), [0.25])
    scale.observe(signal(0.25))
    take_step(optimizer, with_tensor)
    assert_close(values(with_tensor), expected[1])
    assert optimizer.param_groups[0]["lr"] is rate
    scheduler.step()
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(0.05)


def test_each_parameter_group_keeps_its_own_rate_and_decay() -> None:
    first, second = parameters()
    rates, decays, rho = (0.1, 0.01), (0.0, 0.5), 0.25
    groups = [
        {"params": [p], "lr": lr, "weight_decay": wd}
        for p, lr, wd in zip((first, second), rates, decays, strict=True)
    ]
    optimizer = optim.AdamW(groups)
    scale = StepScale(optimizer, LAW)
    scale.observe(signal(rho))
    before = values([first, second])
    take_step(optimizer, [first, second])
    expected = []
    for index, (lr, wd) in enumerate(zip(rates, decays, strict=True)):
        params = parameters()
        change = take_step(optim.AdamW(params, lr=lr, weight_decay=0), params)[index]
        expected.append(before[index] * (1 - lr * wd) + rho * change)
    assert_close(values([first, second]), expected)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == list(
        zip(rates, decays, strict=True)
    )


def test_with_sensitivity_zero_any_optimizer_steps_plainly() -> None:
    law = Viscosity(sensitivity=0, reference="running")
    trajectories = []
    for is_scaled in (False, True):
        params = parameters()
        optimizer = optim.Adam(params, lr=0.1, weight_decay=0.1)
        if is_scaled:
            StepScale(optimizer, law).observe(signal(5.0))
        take_step(optimizer, params)
        trajectories.append(values(params))
    assert all(map(torch.equal, *trajectories))


# Steps that raise, and taking the hooks off


def _fail() -> float:
    raise KeyError("no batch")


@pytest.mark.parametrize("failures", [1, 3])
def test_a_step_that_raised_does_not_change_the_next(failures: int) -> None:
    params, optimizer, scale = scaled_sgd()
    for _ in range(failures):
        scale.observe(signal(9.0))
        with pytest.raises(KeyError):
            optimizer.step(_fail)
    scale.observe(signal(2.0))
    assert_close(take_step(optimizer, params), times(2.0, plain_change()))
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_an_interpolated_step_that_raised_does_not_change_the_next() -> None:
    params = parameters()

    class Fragile(SignSteps):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            if closure:
                closure()
            super().step()

    optimizer = Fragile(params, lr=0.3)
    scale = StepScale(optimizer, LAW)
    scale.observe(signal(9.0))
    with pytest.raises(KeyError):
        optimizer.step(_fail)
    plain = parameters()
    expected = take_step(Fragile(plain, lr=0.3), plain)
    assert_close(take_step(optimizer, params), expected)


def test_close_takes_the_hooks_off() -> None:
    params, optimizer, scale = scaled_sgd()
    scale.observe(signal(9.0))
    with pytest.raises(KeyError):
        optimizer.step(_fail)
    scale.observe(signal(9.0))
    scale.close()
    assert all(map(torch.equal, take_step(optimizer, params), plain_change()))
    scale.close()  # twice does no harm


def test_decay_in_one_group_alone_is_found_and_refused() -> None:
    first, second = parameters()
    groups = [{"params": [first]}, {"params": [second], "weight_decay": 0.1}]
    with pytest.raises(ValueError, match="Adam adds weight decay"):
        StepScale(optim.Adam(groups), LAW)
