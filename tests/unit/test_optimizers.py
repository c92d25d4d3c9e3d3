"""What an optimizer does with its rate is tried; what no multiplier reaches is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer
from transformers.optimization import Adafactor
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

from poise import StepScale
from poise.optimizers import follows_rate
from poise.pgpo.viscosity import Viscosity

from .pgpo.optimizer_steps import (
    LAW,
    MULTIPLIERS,
    SignSteps,
    assert_close,
    changes,
    parameters,
    run,
)

Rule = Callable[[Any, dict[str, Any], Tensor, Tensor], Tensor]


class Foreign(Optimizer):
    """Of a library that Poise does not know: the rule gives the change."""

    rule: Rule

    def __init__(self, params: Any, lr: Any = 0.1, momentum: float = 0.5) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(type(self).rule(self.state[p], group, p, p.grad))


def _average(state: Any, group: dict[str, Any], gradient: Tensor) -> Tensor:
    old = state.get("average", torch.zeros_like(gradient))
    state["average"] = group["momentum"] * old + gradient
    return state["average"]


def _eight_bits(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    average = _average(state, group, gradient)
    state["average"] = (average * 16).round().clamp(-128, 127) / 16
    return -group["lr"] * state["average"]


def _trust_ratio(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    return -group["lr"] * p.norm() * _average(state, group, gradient)


def _waits_a_step(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    is_first = "average" not in state
    return -group["lr"] * _average(state, group, gradient) * (not is_first)


def _rate_must_be_a_tensor(
    state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor
) -> Tensor:
    if not isinstance(group["lr"], Tensor):
        raise RuntimeError("the rate is no tensor any more")
    return -group["lr"].to(gradient) * _average(state, group, gradient)


def _rate_in_the_moments(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    return _average(state, group, -group["lr"] * gradient)


def _bounded(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    return (-group["lr"] * _average(state, group, gradient)).clamp(-0.1, 0.1)


def _ignores_its_rate(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    return -0.1 * gradient


def _does_nothing(state: Any, group: dict[str, Any], p: Tensor, gradient: Tensor) -> Tensor:
    return torch.zeros_like(p)


def _foreign(rule: Rule, rate: Any = 0.1) -> Callable[..., Optimizer]:
    kind = type("Foreign", (Foreign,), {"rule": staticmethod(rule)})
    return lambda params: kind(params, lr=rate)


FOLLOW = {
    "8-bit moments": _foreign(_eight_bits),
    "trust ratio": _foreign(_trust_ratio),
    "no change in its first step": _foreign(_waits_a_step),
    "rate in a tensor": _foreign(_rate_must_be_a_tensor, torch.tensor(0.1, dtype=torch.float64)),
}
DO_NOT = {
    "rate in the moments": _foreign(_rate_in_the_moments),
    "bounded change": _foreign(_bounded),
    "ignores its rate": _foreign(_ignores_its_rate),
    "does nothing": _foreign(_does_nothing),
    "rate squared": lambda params: SignSteps(params, lr=0.3),
}


@pytest.mark.parametrize("name", FOLLOW | DO_NOT)
def test_what_an_optimizer_does_with_its_rate_is_found_by_trying(name: str) -> None:
    state = torch.random.get_rng_state()
    assert follows_rate((FOLLOW | DO_NOT)[name](parameters())) == (name in FOLLOW)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_one_that_follows_is_scaled_without_a_copy_of_its_parameters() -> None:
    factory = FOLLOW["8-bit moments"]
    plain, _, _ = run(factory, MULTIPLIERS, scaled=False)
    scaled, optimizer, scale = run(factory, MULTIPLIERS)
    for rho, found, expected in zip(MULTIPLIERS, changes(scaled), changes(plain), strict=True):
        assert_close(found, [rho * change for change in expected])
    assert scale is not None
    copies = []
    optimizer.register_step_pre_hook(lambda *_: copies.extend(scale._saved_params))
    optimizer.step()
    assert not copies


def test_a_class_that_needs_more_than_its_settings_is_interpolated() -> None:
    class Needy(SignSteps):
        def __init__(self, params: Any, lr: float, *, model: nn.Module) -> None:
            super().__init__(params, lr)

    assert not follows_rate(Needy(parameters(), 0.3, model=nn.Linear(1, 1)))


def test_transformers_adafactor_is_tried_with_its_own_settings() -> None:
    options = {"relative_step": False, "scale_parameter": False}
    assert follows_rate(Adafactor(parameters(), lr=0.1, **options))


def test_every_group_is_tried_with_its_settings() -> None:
    first, second = parameters()
    groups = [{"params": []}, {"params": [first]}, {"params": [second], "momentum": 0.0}]
    kind = type("Foreign", (Foreign,), {"rule": staticmethod(_rate_in_the_moments)})
    assert not follows_rate(kind(groups))
    assert follows_rate(kind([{"params": [second], "momentum": 0.0}]))


# Refused


class Lomo(SignSteps):
    """Named as lomo-optim's, whose `step` does nothing."""


def _in_backward() -> Optimizer:
    params: list[Any] = parameters()
    params[1]._in_backward_optimizers = [optim.SGD(params[1:], lr=0.1)]  # as torch notes it
    return optim.SGD(params, lr=0.1)


@pytest.mark.parametrize(
    "make",
    [lambda: Lomo(parameters(), 0.1), lambda: LayerWiseDummyOptimizer({}, lr=0.1), _in_backward],
    ids=["LOMO", "layer-wise", "torch's"],
)
def test_an_optimizer_that_steps_inside_the_backward_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"steps inside the backward, past StepScale's multiplier"):
        StepScale(make(), LAW)
    StepScale(make(), Viscosity(sensitivity=0))


def test_an_optimizer_that_keeps_other_weights_than_it_trains_is_refused() -> None:
    class ScheduleFree(SignSteps):
        def train(self) -> None: ...
        def eval(self) -> None: ...

    with pytest.raises(ValueError, match="ScheduleFree evaluates and saves other weights than it"):
        StepScale(ScheduleFree(parameters(), 0.1), LAW)
    StepScale(ScheduleFree(parameters(), 0.1), Viscosity(sensitivity=0))


class LineSearch(SignSteps):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()
        super().step()


@pytest.mark.parametrize("kind", [optim.LBFGS, LineSearch])
def test_an_optimizer_that_needs_a_closure_is_refused(kind: Any) -> None:
    """What LBFGS takes for its last step is not the one that was scaled."""
    with pytest.raises(ValueError, match=f"{kind.__name__}'s step needs a closure"):
        StepScale(kind(parameters(), lr=0.1), LAW)
    StepScale(kind(parameters(), lr=0.1), Viscosity(sensitivity=0))


def test_an_optimizer_without_step_hooks_is_refused() -> None:
    class Offloading(Optimizer):
        def __init__(self) -> None:
            self.param_groups = []

    with pytest.raises(TypeError, match="Offloading runs no step hooks"):
        StepScale(Offloading(), LAW)
