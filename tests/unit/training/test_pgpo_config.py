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
        {"sensitivity": 0.0},
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
