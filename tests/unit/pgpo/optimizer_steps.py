"""Tools of the step scale's tests: float64 parameters, fixed gradients, optimizers side by side."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from poise import StepScale
from poise.pgpo.signal import SignalSum
from poise.pgpo.viscosity import Viscosity

Factory = Callable[[list[nn.Parameter]], Optimizer]

# exp(signal) within wide bounds, so that a test names the multiplier by its logarithm.
LAW = Viscosity(sensitivity=1.0, rho_min=0.01, rho_max=100.0)
MULTIPLIERS = (0.5, 1.0, 2.5, 0.02, 7.0)


def signal(multiplier: float, sequences: float = 1.0) -> SignalSum:
    """The observation that `LAW` turns into this multiplier (to rounding)."""
    total = math.log(multiplier) * sequences
    return SignalSum(*torch.tensor([total, sequences], dtype=torch.float64))


def parameters(seed: int = 0) -> list[nn.Parameter]:
    """Matrices alone, since Muon takes no others."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 4), (2, 2))
    return [nn.Parameter(torch.randn(s, dtype=torch.float64, generator=generator)) for s in shapes]


def gradients(step: int) -> list[Tensor]:
    """The same for every run, whatever its parameters are."""
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters()]


def values(params: Sequence[Tensor]) -> list[Tensor]:
    return [p.detach().clone() for p in params]


def feed(params: list[nn.Parameter], step: int) -> None:
    for param, gradient in zip(params, gradients(step), strict=True):
        param.grad = gradient


def run(
    factory: Factory,
    multipliers: Sequence[float | None],
    *,
    scaled: bool = True,
    **options: Any,
) -> tuple[list[list[Tensor]], Optimizer, StepScale | None]:
    """Parameters before and after every step; None is a step without an observation."""
    params = parameters()
    optimizer = factory(params)
    scale = StepScale(optimizer, LAW, **options) if scaled else None
    trajectory = [values(params)]
    for step, multiplier in enumerate(multipliers):
        feed(params, step)
        if scale is not None and multiplier is not None:
            scale.observe(signal(multiplier))
        optimizer.step()
        trajectory.append(values(params))
    return trajectory, optimizer, scale


def changes(trajectory: list[list[Tensor]]) -> list[list[Tensor]]:
    return [
        [after - before for before, after in zip(*pair, strict=True)]
        for pair in itertools.pairwise(trajectory)
    ]


def state_tensors(optimizer: Optimizer) -> list[Tensor]:
    """Everything that the optimizer remembers, in a fixed order."""
    found: list[Tensor] = []

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                walk(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif isinstance(value, (int, float)):
            found.append(torch.tensor(value, dtype=torch.float64))

    walk(optimizer.state_dict()["state"])
    return found


def same_state(a: Optimizer, b: Optimizer) -> bool:
    pairs = zip(state_tensors(a), state_tensors(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def twin(
    factory: Factory, params: list[nn.Parameter], optimizer: Optimizer
) -> tuple[list[nn.Parameter], Optimizer]:
    """A plain copy of a run, to take the next step from the same place."""
    copies = [nn.Parameter(p.detach().clone()) for p in params]
    plain = factory(copies)
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return copies, plain


def take_step(optimizer: Optimizer, params: list[nn.Parameter], step: int = 0) -> list[Tensor]:
    """Takes a step; returns its change."""
    before = values(params)
    feed(params, step)
    optimizer.step()
    return [p.detach() - b for p, b in zip(params, before, strict=True)]


def scaled_sgd() -> tuple[list[nn.Parameter], Optimizer, StepScale]:
    params = parameters()
    optimizer = optim.SGD(params, lr=0.1)
    return params, optimizer, StepScale(optimizer, LAW)


def plain_change() -> list[Tensor]:
    """The first step of plain SGD."""
    params = parameters()
    return take_step(optim.SGD(params, lr=0.1), params)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def times(factor: float, tensors: list[Tensor]) -> list[Tensor]:
    return [factor * tensor for tensor in tensors]


class SignSteps(Optimizer):
    """A user's optimizer: unknown to Poise, and its step is not proportional to its rate."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                momentum = self.state[param].setdefault("momentum", torch.zeros_like(param))
                momentum.mul_(0.9).add_(param.grad)
                param.mul_(1 - group["lr"] * group["weight_decay"])
                param.sub_(group["lr"] ** 2 * momentum.sign())
