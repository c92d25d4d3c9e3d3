"""A brake that is not released is named once; one that lets go is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import PartialState

from poise import PGPOTrainer


def _warnings(factors: list[float], args: Any, caplog: Any, patience: int = 20) -> list[bool]:
    """After which steps the trainer warns."""
    PartialState()
    trainer = SimpleNamespace(args=args, _standing=0, standstill_patience=patience)
    said = []
    for factor in factors:
        caplog.clear()
        PGPOTrainer._warn_of_standstill(trainer, factor)
        said.append("steps in a row the signal has cut the step" in caplog.text)
    return said


@pytest.mark.parametrize("factor", [0.02, 0.01, 0.0001])
def test_a_standstill_is_told_once_and_a_step_that_moves_ends_it(
    factor: float, caplog: pytest.LogCaptureFixture
) -> None:
    factors = [factor] * 5 + [0.5] + [factor] * 3
    said = _warnings(factors, SimpleNamespace(rho_min=0.02), caplog, patience=3)
    assert [step for step, is_told in enumerate(said) if is_told] == [2, 8]


@pytest.mark.parametrize(("factor", "rho_min"), [(1.0, 1.0), (0.5, 0.5), (0.03, 0.002)])
def test_no_standstill_where_steps_still_move(
    factor: float, rho_min: float, caplog: pytest.LogCaptureFixture
) -> None:
    assert not any(_warnings([factor] * 3, SimpleNamespace(rho_min=rho_min), caplog, patience=1))


@pytest.mark.parametrize("reference", ["initial", "running"])
def test_the_default_brake_that_is_never_released_is_told(
    reference: str, make_config: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    args = make_config(signal_reference=reference)

    def is_told(signals: list[float]) -> bool:
        law, factors = args.viscosity(), []
        state = law.init()
        for signal in signals:
            factor, state = law.step(signal, state)
            factors.append(factor)
        return any(_warnings(factors, args, caplog))

    usual = [0.5] * 10
    assert is_told(usual + [0.0] * 40)
    assert is_told(usual + [0.01] * 40)  # as good as nothing
    healthy = [0.5 * 0.98**step * (1 + 0.5 * math.sin(step)) for step in range(60)]
    assert not is_told(usual + healthy)
    assert not is_told(usual + ([0.0] * 15 + [0.3]) * 5)
