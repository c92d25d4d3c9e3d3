"""With sensitivity 0 and every mend off, PGPO is TRL's SDPO."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig

from poise import PGPOTrainer
from poise.trl.contract import SDPOConfig, SDPOTrainer
from tests.exact import ROUNDING, apart, same
from tests.grids import grid
from tests.tiny import UNSCALED, tiny_dataset, vowel_reward

pytestmark = pytest.mark.usefixtures("float64", "device")

MENDS_OFF = UNSCALED | {
    "exact_resume": False,
    "teacher_from_student": False,
    "random_demonstration": False,
    "normalize_by_distilled": False,
    "skip_nonfinite_steps": False,
    "collapse_warning": False,
    "check_rewards": False,
}
FULL = {"distillation_mode": "full_logits"}
TOPK = {"distillation_mode": "topk_logits", "distillation_topk": 5}
MODES: dict[str, dict[str, Any]] = {
    "sampled token": {"distillation_mode": "sampled_token"},
    "sampled token, off policy": {"distillation_mode": "sampled_token", "steps_per_generation": 2},
    "full, Jensen-Shannon": FULL | {"distillation_alpha": 0.5},
    "full, reverse": FULL | {"distillation_alpha": 1.0},
    "full, forward": FULL | {"distillation_alpha": 0.0},
    "top-k": TOPK | {"distillation_alpha": 0.5},
    "top-k with tail, off policy": TOPK
    | {"distillation_alpha": 0.5, "distillation_add_tail": True, "steps_per_generation": 2},
    "blend with the policy loss": FULL | {"distillation_weight": 0.5},
}
HOST_ONLY_MODES = {
    "policy alone": {"distillation_weight": 0.0},
}
TEACHERS = ("ema", "live", "base")
COMMON = {"max_steps": 5}


def _train(trainer_class: Any, config: Any, model: str, lora: bool) -> dict[str, torch.Tensor]:
    trainer = trainer_class(
        model=model,
        reward_funcs=vowel_reward,
        args=config,
        train_dataset=tiny_dataset(),
        peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
    )
    trainer.train()
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.fixture(scope="session")
def host_runs() -> dict[Any, dict[str, torch.Tensor]]:
    """The host's weights by setting: two tests compare with each of them."""
    return {}


@pytest.fixture
def run_host(
    host_runs: dict[Any, Any],
    make_config: Callable[..., Any],
    exact_model_path: str,
    device: torch.device,
) -> Callable[..., dict[str, torch.Tensor]]:
    def run(settings: dict[str, Any], lora: bool) -> dict[str, torch.Tensor]:
        key = (tuple(sorted(settings.items())), lora, device)
        if key not in host_runs:
            config = make_config(SDPOConfig, **COMMON | settings)
            host_runs[key] = _train(SDPOTrainer, config, exact_model_path, lora)
            start = _train(
                SDPOTrainer,
                make_config(SDPOConfig, **settings, max_steps=1, learning_rate=0.0),
                exact_model_path,
                lora,
            )
            assert any(not torch.equal(host_runs[key][n], w) for n, w in start.items())
        return host_runs[key]

    return run


def _settings(mode: str, teacher: str) -> dict[str, Any]:
    return (MODES | HOST_ONLY_MODES)[mode] | {"teacher_model_kind": teacher}


# Every mode with the default teacher, every teacher with one mode.
PAIRS = [(mode, "ema") for mode in MODES] + [("full, Jensen-Shannon", t) for t in TEACHERS[1:]]
CASES = [(*pair, lora) for pair in PAIRS for lora in (False, True)]
HOST_ONLY_CASES = [(mode, "ema", lora) for mode in HOST_ONLY_MODES for lora in (False, True)]
QUICK = [
    ("sampled token, off policy", "ema", False),
    ("blend with the policy loss", "ema", True),
]


@pytest.fixture
def run_both(
    run_host: Callable[..., Any], make_config: Callable[..., Any], exact_model_path: str
) -> Callable[..., tuple[Any, Any]]:
    """PGPO's weights in a neutral setting, and the host's."""

    def run(mode: str, teacher: str, lora: bool, **own: Any) -> tuple[Any, Any]:
        settings = _settings(mode, teacher)
        expected = run_host(settings, lora)
        config = make_config(**own, **COMMON | settings, **MENDS_OFF)
        return _train(PGPOTrainer, config, exact_model_path, lora), expected

    return run


@pytest.mark.parametrize(("mode", "teacher", "lora"), grid(CASES + HOST_ONLY_CASES, QUICK))
def test_neutral_setting_with_the_hosts_loss_is_the_host_bit_for_bit(
    mode: str, teacher: str, lora: bool, run_both: Callable[..., Any]
) -> None:
    assert same(*run_both(mode, teacher, lora, tiled_loss=False))


@pytest.mark.parametrize(("mode", "teacher", "lora"), grid(CASES, QUICK))
def test_neutral_setting_with_the_tiled_loss_is_the_host_within_rounding(
    mode: str, teacher: str, lora: bool, run_both: Callable[..., Any]
) -> None:
    assert apart(*run_both(mode, teacher, lora, loss_tile_tokens=7)) <= ROUNDING
