"""Rollouts of another sampler than the policy itself: a ratio of probabilities weighs them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from poise import PGPOConfig, PGPOTrainer
from tests.tiny import RUN, tiny_dataset, vowel_reward

# One plain step of distillation towards a teacher that has read a hint.
SETTINGS: dict[str, Any] = RUN | {
    "max_steps": 1,
    "multiplier": "none",
    "routing": False,
    "include_environment_feedback": True,
    "distillation_mode": "full_logits",
    "distillation_is_clip": 2.0,
    "generation_kwargs": {"do_sample": False, "temperature": None, "top_k": None, "top_p": None},
    "optim": "sgd",
    "weight_decay": 0.0,
    "max_grad_norm": 1e6,
    "learning_rate": 1.0,  # beside which the rounding of weights is small
}


class Sampler:
    """In vLLM's place: transformers' rollouts, whose log-probabilities are moved by a shift."""

    logprobs: int | None = None  # as TRL's SDPO has it: it gives none

    def __init__(self, trainer: Any, shift: float | None) -> None:
        self._trainer, self._shift = trainer, shift

    def sync_weights(self) -> None:
        """It has the weights."""

    @torch.no_grad()
    def generate(self, prompts: list[list[int]], images: None, num_generations: int) -> Any:
        trainer = self._trainer
        _, completions = trainer._generate_transformers(prompts)
        logps: list[Any] = []
        for prompt, tokens in zip(prompts, completions, strict=True):
            logits = trainer.model(input_ids=torch.tensor([prompt + tokens])).logits[0]
            places = logits[len(prompt) - 1 : -1].log_softmax(-1)
            own = places.gather(1, torch.tensor(tokens)[:, None]).tolist()
            logps.append([[None if self._shift is None else x + self._shift] for (x,) in own])
        return prompts, completions, None if self.logprobs is None else logps, None


def change(path: str, folder: Path, shift: float | None = 0.0, **settings: Any) -> Any:
    """What a step adds to all weights, and the trainer."""
    is_plain = settings.pop("plain", False)
    trainer = PGPOTrainer(
        model=path,
        reward_funcs=vowel_reward,
        args=PGPOConfig(output_dir=str(folder), **SETTINGS | settings),
        train_dataset=tiny_dataset(),
    )
    if not is_plain:
        trainer.use_vllm, trainer._last_loaded_step = True, -1
        trainer.vllm_generation = Sampler(trainer, shift)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    after = trainer.model.parameters()
    parts = [(p.detach() - old).flatten() for p, old in zip(after, before, strict=True)]
    return torch.cat(parts), trainer


def apart(left: Tensor, right: Tensor) -> float:
    return float((left - right).norm() / right.norm())


@pytest.fixture(scope="module")
def plain(tiny_model_path: str, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    step, _ = change(tiny_model_path, tmp_path_factory.mktemp("plain"), plain=True)
    assert step.norm() > 0
    return step


@pytest.mark.parametrize(
    ("probability", "settings", "factor"),
    [
        (1.0, {}, 1.0),  # it has the policy's
        (2.0, {}, 0.5),  # it draws these twice as often as the policy does
        (0.1, {}, 2.0),  # ten times as seldom: truncated
        (2.0, {"distillation_is_clip": None}, 1.0),
        (2.0, {"vllm_importance_sampling_correction": False}, 1.0),
    ],
)
def test_distilled_tokens_weigh_by_the_ratio_to_the_sampler(
    probability: float,
    settings: dict[str, Any],
    factor: float,
    plain: Tensor,
    tiny_model_path: str,
    tmp_path: Path,
) -> None:
    step, trainer = change(tiny_model_path, tmp_path, math.log(probability), **settings)
    assert apart(step, factor * plain) < 2e-5
    seen = [x for log in trainer.state.log_history if (x := log.get("pgpo/sampler_log_ratio"))]
    if settings.get("vllm_importance_sampling_correction", True):
        assert seen == [pytest.approx(abs(math.log(probability)), abs=1e-5)] * len(seen)
        assert bool(seen) or probability == 1.0
    else:
        assert seen == []
    assert "generate" not in vars(trainer.vllm_generation)


def test_a_sampler_without_numbers_makes_a_step_that_is_skipped(
    tiny_model_path: str, tmp_path: Path
) -> None:
    step, trainer = change(tiny_model_path, tmp_path, None)
    assert step.norm() == 0
    assert trainer.nonfinite_guard.total == 1


def test_an_evaluation_is_of_the_policy_alone(tiny_model_path: str, tmp_path: Path) -> None:
    _, trainer = change(tiny_model_path, tmp_path, math.log(2))
    trainer.model.eval()
    trainer._sampler_logps = [[[0.0]]]
    ids = torch.ones((1, 1), dtype=torch.long)
    assert trainer._compute_rollout_logps(ids, ids, ids, ids) is None
