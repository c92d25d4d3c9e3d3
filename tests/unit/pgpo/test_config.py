"""PGPO's arguments: what they are by default, and what follows from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def test_a_brake_has_a_warm_up_of_a_tenth_rounded_down(make_config: Callable[..., Any]) -> None:
    config = make_config()
    assert [config.get_warmup_steps(n) for n in (1, 2, 9, 11, 100, 399)] == [0, 0, 0, 1, 10, 39]
    assert make_config(warmup_steps=7).get_warmup_steps(100) == 7
    assert make_config(warmup_steps=0).get_warmup_steps(100) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"multiplier": "none"},
        {"rho_min": 1.0},
        {"signal_reference": "none"},
        {"signal_prior_reference": 0.3},
    ],
)
def test_without_a_brake_on_the_first_steps_the_warm_up_is_the_hosts(
    settings: dict[str, Any], make_config: Callable[..., Any]
) -> None:
    assert make_config(**settings).warmup_steps == 0
    assert make_config(**settings, warmup_steps=0.1).get_warmup_steps(11) == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"multiplier": "none", "target_distance": 0.01}, "target_distance=0.01 has no effect"),
        ({"multiplier": "information", "correct_steps": True}, "correct_steps=True has no effect"),
        ({"multiplier": "information", "sensitivity": 0.0}, "a multiplier of 1"),
        ({"multiplier": "distance", "beta": 0.1}, "turns off routing"),
    ],
)
def test_an_argument_without_effect_is_named(
    settings: dict[str, Any], named: str, make_config: Callable[..., Any]
) -> None:
    with pytest.warns(UserWarning, match=named):
        make_config(**settings)
