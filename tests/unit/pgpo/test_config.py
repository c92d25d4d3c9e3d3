"""PGPO's arguments: what they are by default, and what follows from others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise import PGPOConfig
from tests.tiny import UNSCALED


def test_a_brake_has_a_warm_up_of_a_tenth_rounded_down(make_config: Callable[..., Any]) -> None:
    config = make_config()
    assert [config.get_warmup_steps(n) for n in (1, 2, 9, 11, 100, 399)] == [0, 0, 0, 1, 10, 39]
    assert make_config(warmup_steps=7).get_warmup_steps(100) == 7
    assert make_config(warmup_steps=0).get_warmup_steps(100) == 0


@pytest.mark.parametrize(
    "settings",
    [
        UNSCALED,
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
        (UNSCALED | {"target_distance": 0.01}, "target_distance=0.01 has no effect"),
        ({"multiplier": "none", "sensitivity": 1.0}, "sensitivity=1.0 has no effect"),
        ({"multiplier": "information", "correct_steps": True}, "correct_steps=True has no effect"),
        ({"multiplier": "information", "sensitivity": 0.0}, "a multiplier of 1"),
        ({"multiplier": "distance", "beta": 0.1}, "turns off routing"),
        ({"multiplier": "distance", "loss_type": "dr_grpo"}, "'dr_grpo' has no effect with rout"),
        ({"loss_type": "dr_grpo"}, "no effect with distillation_weight=1.0"),
        ({"epsilon": 0.1}, "epsilon=0.1 has no effect with distillation_weight=1.0"),
    ],
)
def test_an_argument_without_effect_is_named(
    settings: dict[str, Any], named: str, make_config: Callable[..., Any]
) -> None:
    with pytest.warns(UserWarning, match=named):
        make_config(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"distillation_weight": 0.0},
        {"use_teacher_server": True, "tiled_loss": False},
    ],
)
def test_a_multiplier_of_1_needs_no_signal_whatever_it_is_called(
    settings: dict[str, Any], make_config: Callable[..., Any]
) -> None:
    with pytest.warns(UserWarning, match="a multiplier of 1"):
        make_config(multiplier="information", sensitivity=0.0, **settings)
    make_config(**UNSCALED, **settings)
    with pytest.raises(ValueError, match="expected multiplier='none', found 'information'"):
        make_config(multiplier="information", sensitivity=1.0, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"multiplier": "distance", "epsilon": 0.1, "importance_sampling_level": "sequence"},
        {"distillation_weight": 0.5, "loss_type": "grpo", "epsilon": 0.1},
        UNSCALED | {"distillation_weight": 0.0, "loss_type": "grpo"},
        {"generation_kwargs": {"top_k": 5, "eos_token_id": [1, 2]}},
        {"generation_kwargs": {"best_of": 2}, "use_vllm": True},
    ],
)
def test_an_argument_with_an_effect_is_taken_in_silence(
    settings: dict[str, Any], make_config: Callable[..., Any]
) -> None:
    make_config(**settings)


def test_the_papers_form_without_a_multiplier_is_silent(tmp_path: Path) -> None:
    config = PGPOConfig.paper(str(tmp_path), multiplier="none", use_cpu=True)
    assert (config.sensitivity, config.signal_estimator) == (0.0, "entropy")
