"""What the trainer fixes in TRL, seen in whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from tokenizers.processors import TemplateProcessing

from poise import PGPOTrainer
from poise.trl.guards import NonFiniteTrainingError
from poise.trl.manifest import verify
from tests.exact import ROUNDING
from tests.tiny import UNSCALED, tiny_dataset, vowel_reward

Make = Callable[..., PGPOTrainer]
FULL = {"distillation_mode": "full_logits", "distillation_alpha": 0.5}


@pytest.fixture
def make_trainer(make_config: Callable[..., Any], tiny_model_path: str) -> Make:
    def make(
        reward: Any = vowel_reward, lora: bool = False, model: str | None = None, **settings: Any
    ) -> PGPOTrainer:
        return PGPOTrainer(
            model=model or tiny_model_path,
            reward_funcs=reward,
            args=make_config(**FULL | settings),
            train_dataset=tiny_dataset(),
            peft_config=LoraConfig(r=2, target_modules="all-linear") if lora else None,
        )

    return make


def _weights(trainer: PGPOTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])


def _history(trainer: PGPOTrainer, key: str) -> list[float]:
    return [log[key] for log in trainer.state.log_history if key in log]


@pytest.mark.usefixtures("float64", "device")
def test_micro_batches_of_one_equal_one_batch(make_trainer: Make, exact_model_path: str) -> None:
    """Rollouts, signal, normalisation and clipping do not see how a step is cut."""
    # A random demonstration is drawn by the micro-batch's number.
    settings = {"model": exact_model_path, "random_demonstration": False}
    whole = make_trainer(per_device_train_batch_size=8, **settings)
    whole.train()
    parts = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=8, **settings)
    parts.train()
    fractions = _history(whole, "pgpo/distilled_fraction")
    assert any(0 < fraction < 1 for fraction in fractions), "some samples must be left out"
    assert _history(parts, "pgpo/distilled_fraction") == pytest.approx(fractions)
    for key in ("pgpo/information_signal", "pgpo/multiplier", "grad_norm"):
        assert _history(parts, key) == pytest.approx(_history(whole, key), rel=ROUNDING), key
    assert (_weights(parts) - _weights(whole)).norm() <= ROUNDING * _weights(whole).norm()


@pytest.mark.usefixtures("float64", "device")
def test_samples_that_are_left_out_do_not_shrink_the_step(
    make_trainer: Make, exact_model_path: str
) -> None:
    def first_alone(completions: list[str], **columns: Any) -> list[float]:
        return [1.0] + [0.0] * (len(completions) - 1)

    norms = {}
    for normalize in (False, True):
        settings = {"max_steps": 1, "max_grad_norm": 0.0, "normalize_by_distilled": normalize}
        trainer = make_trainer(first_alone, model=exact_model_path, **settings)
        trainer.train()
        norms[normalize] = _history(trainer, "grad_norm")[0]
        # The first is shown to its three siblings, not to itself; the other group has none.
        assert _history(trainer, "pgpo/distilled_fraction") == [3 / 8]
    assert norms[True] == pytest.approx(norms[False] * 8 / 3, rel=ROUNDING)


@pytest.mark.usefixtures("device")
def test_text_of_a_reward_function_reaches_the_teacher(make_trainer: Make) -> None:
    def reward(completions: list[str], **columns: Any) -> list[tuple[float, str | None]]:
        # The check before training comes with empty completions.
        return [(0.0, f"you wrote {len(text)} letters" if text else None) for text in completions]

    seen: list[str] = []
    trainer = make_trainer(reward, max_steps=1, include_environment_feedback=True)
    build = trainer.teacher_context_builder.build

    def watch(*args: Any, **kwargs: Any) -> Any:
        context = build(*args, **kwargs)
        seen.extend(trainer.processing_class.batch_decode(context["teacher_input_ids"]))
        return context

    trainer.teacher_context_builder.build = watch
    trainer.train()
    assert len(seen) == 8
    assert all("letters" in "".join(text.split()) for text in seen)
    assert _history(trainer, "pgpo/distilled_fraction") == [1.0]


def test_prompts_without_success_are_sampled_again_up_to_the_bound(make_trainer: Make) -> None:
    calls = {"reward": 0}

    def never(completions: list[str], **columns: Any) -> list[float]:
        calls["reward"] += 1
        return [0.0 for _ in completions]

    trainer = make_trainer(never, max_steps=1, max_resamples=3, check_rewards=False)
    generated: list[int] = []
    generate = trainer._generate_transformers

    def watch(prompts: Any) -> Any:
        generated.append(len(prompts))
        return generate(prompts)

    trainer._generate_transformers = watch
    trainer.train()
    assert generated == [8] * 4  # once, and three times again
    assert calls["reward"] == 4  # the host's own call is served from the last one


def test_a_tokenizer_that_ends_every_text_ends_no_prompt(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=1)
    ends = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    trainer.processing_class.backend_tokenizer.post_processor = ends
    batch = trainer._prepare_training_batch([{"prompt": "add 1", "answer": "1"}] * 4)
    length = batch["completion_ids"].shape[1]
    assert trainer.processing_class("add 1")["input_ids"][-1] == 1
    assert 1 not in batch["prompt_ids"]
    assert 1 not in batch["teacher_input_ids"][:, :-length]


def _spoil(trainer: PGPOTrainer, steps: set[int]) -> list[torch.Tensor]:
    """Makes the loss NaN in some steps; returns the weights before each step."""
    before: list[torch.Tensor] = []
    compute = trainer._tiled_loss

    def spoiled(model: Any, inputs: Any) -> torch.Tensor:
        before.append(_weights(trainer))
        loss = compute(model, inputs)
        return loss * math.nan if len(before) in steps else loss

    trainer._tiled_loss = spoiled
    return before


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_step_that_is_not_finite_changes_nothing(
    make_trainer: Make, max_grad_norm: float
) -> None:
    trainer = make_trainer(max_steps=4, max_grad_norm=max_grad_norm, signal_reference="running")
    before = _spoil(trainer, {3})
    trainer.train()
    assert torch.equal(before[2], before[3])  # the third step was skipped
    assert not torch.equal(before[1], before[2])
    assert torch.isfinite(_weights(trainer)).all()
    assert _history(trainer, "pgpo/skipped_steps")[-1] == 1
    assert trainer.step_scale.state.steps == 3  # nor did it move the reference


@pytest.mark.usefixtures("device")
def test_too_many_such_steps_stop_the_run_with_its_checkpoint_intact(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=9, max_nonfinite_steps=2, save_strategy="steps", save_steps=2)
    _spoil(trainer, {3, 4, 5, 6})
    with pytest.raises(NonFiniteTrainingError, match=r"3 steps in a row.*checkpoint-4"):
        trainer.train()
    verify(Path(trainer.args.output_dir) / "checkpoint-4")


@pytest.mark.usefixtures("device")
def test_sensitivity_zero_logs_a_multiplier_of_one(make_trainer: Make) -> None:
    trainer = make_trainer(**UNSCALED)
    trainer.train()
    assert _history(trainer, "pgpo/multiplier") == [1.0] * 3
    assert all(math.isfinite(signal) for signal in _history(trainer, "pgpo/information_signal"))


@pytest.mark.usefixtures("float64", "device")
@pytest.mark.parametrize("estimator", ["entropy", "kl", "pointwise"])
def test_signal_is_the_same_with_the_tiled_and_the_hosts_loss(
    make_trainer: Make, exact_model_path: str, estimator: str
) -> None:
    law = {"signal_estimator": estimator, "signal_reference": "none"}
    signals = []
    for tiled in (True, False):
        trainer = make_trainer(model=exact_model_path, max_steps=1, tiled_loss=tiled, **law)
        trainer.train()
        signals.append(_history(trainer, "pgpo/information_signal")[0])
    assert signals[0] == pytest.approx(signals[1], rel=ROUNDING, abs=ROUNDING)


def test_a_run_that_is_braked_at_every_step_for_want_of_a_signal_is_warned_of(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "poise.pgpo.trainer.token_information",
        lambda estimator, statistics: -torch.ones_like(statistics.student_entropy),
    )
    trainer = make_trainer(signal_reference="running", rho_min=0.02)
    trainer.standstill_patience = 2
    trainer.train()
    assert _history(trainer, "pgpo/multiplier") == [0.02] * 3
    rates = _history(trainer, "learning_rate")
    assert _history(trainer, "pgpo/effective_learning_rate") == [0.02 * rate for rate in rates]
    told = [r for r in caplog.records if "For 2 steps in a row the signal" in r.message]
    assert len(told) == 1 and "(now 0.02 of it)" in told[0].message


@pytest.mark.parametrize(
    ("setting", "is_told"),
    [
        ({}, False),  # a tenth of three steps is none
        ({"warmup_steps": 0}, True),
        ({"lr_scheduler_type": "constant", "warmup_steps": 2}, True),  # a schedule that ignores it
        ({"warmup_steps": 2}, False),
    ],
)
def test_a_brake_without_a_warm_up_is_warned_of(
    make_trainer: Make, caplog: pytest.LogCaptureFixture, setting: dict[str, Any], is_told: bool
) -> None:
    brake = {"sensitivity": 6.0, "rho_min": 0.002, "signal_estimator": "kl"}
    reference = {"signal_reference": "initial", "signal_reference_steps": 2}
    make_trainer(**brake | reference | setting).train()
    told = [r for r in caplog.records if "The learning rate has no warm-up" in r.message]
    assert len(told) == is_told
