"""The study of collapse, a few steps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.studies import collapse
from lab.tasks import cipher, sorting

CONFIG: dict[str, Any] = {
    "method": "pgpo",
    "seed": 1,
    "steps": 3,
    "prompts": 2,
    "rollouts": 4,
    "test_questions": 8,
    "test_every": 3,
    "learning_rate": 1e-3,
    "distillation_mode": "full_logits",
    "sensitivity": 1.0,
    "success_reward_threshold": 0.0,  # every sibling is a demonstration: there is a signal
}


@pytest.fixture(autouse=True)
def _a_model_of_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    monkeypatch.setattr(sorting, "STEPS", 25)
    monkeypatch.setattr(cipher, "STEPS", 25)


def test_a_run_has_the_figures_that_the_table_shows() -> None:
    figures = collapse.run(CONFIG)
    assert len(figures["accuracy"]) == 2  # before and after
    assert figures["final"] == figures["accuracy"][-1]
    assert figures["best"] == max(figures["accuracy"][1:])
    assert figures["survived"] == float(figures["final"] >= figures["before"])
    assert len(figures["multipliers"]) == len(figures["signals"]) == 3
    assert figures["mean_multiplier"] == pytest.approx(sum(figures["multipliers"]) / 3)
    assert collapse.run(CONFIG) == figures


LIVE = {"multipliers": [1.5, 1.0, 1.25, 1.75], "signals": [0.4, None, 0.2, 0.6]}


def test_the_shuffled_control_uses_the_multipliers_of_live_steps_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = collapse._train
    monkeypatch.setattr(collapse, "_train", lambda *args: LIVE if len(args) == 1 else train(*args))
    used = collapse.run(CONFIG | {"steps": 4, "control": "shuffled"})["multipliers"]
    assert sorted(used[:3]) == [1.25, 1.5, 1.75] and used[:3] != [1.5, 1.25, 1.75]
    assert used[3] == used[0]  # and from the beginning again


@pytest.mark.parametrize(("signals", "mean"), [(LIVE["signals"], 1.5), ([None] * 4, 1.0)])
def test_the_control_of_the_mean_step_is_sdpo_at_the_rate_of_live_steps(
    signals: list[float | None], mean: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def train(config: dict[str, Any], multipliers: Any = ()) -> dict[str, Any]:
        asked.append(config)
        return LIVE | {"signals": signals}

    monkeypatch.setattr(collapse, "_train", train)
    collapse.run(CONFIG | {"steps": 4, "control": "mean_step"})
    assert [(c.get("multiplier"), c["learning_rate"]) for c in asked] == [
        (None, 1e-3),
        ("none", pytest.approx(mean * 1e-3)),
    ]


WARM = {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 2}


def test_the_scheduled_mean_step_is_the_mean_by_learning_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def train(config: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        asked.append(config)
        return {"multipliers": [2.0, 2.0, 0.5, 0.1], "signals": [0.1, 0.1, 0.1, 0.1]}

    monkeypatch.setattr(collapse, "_train", train)
    collapse.run(CONFIG | WARM | {"steps": 4, "control": "scheduled_mean_step"})
    # Rates 0, 1/2, 1, 1: (1 + 0.5 + 0.1) / 2.5
    assert asked[1]["learning_rate"] == pytest.approx(0.64e-3) and asked[1]["multiplier"] == "none"


def test_the_scheduled_shuffle_leaves_the_warm_up_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    train, used = collapse._train, [1.9, 1.8, 0.4, 0.3, 0.2, 0.1]
    first = {"multipliers": used, "signals": [0.1] * 6}

    def replayed(config: dict[str, Any], *args: Any, **more: Any) -> dict[str, Any]:
        return train(config, *args, **more) if args else first

    monkeypatch.setattr(collapse, "_train", replayed)
    config = CONFIG | WARM | {"control": "scheduled_shuffled", "steps": 6, "test_every": 3}
    found = collapse.run(config)["multipliers"]
    assert found[:2] == used[:2] and sorted(found) == sorted(used) and found != used


def test_steps_that_distil_nothing_do_not_count_in_the_mean_multiplier() -> None:
    # No sibling can succeed: there is nothing to learn from, and no signal.
    figures = collapse.run(CONFIG | {"success_reward_threshold": 2.0})
    assert figures["live_steps"] == 0 and figures["mean_multiplier"] is None
    assert figures["multipliers"] == [1.0] * 3 and figures["signals"] == [None] * 3


@pytest.mark.parametrize("trainer", ["pgpo", "grpo"])
def test_a_run_that_diverges_is_a_result(trainer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(curve: Any, model: Any, tokenizer: Any) -> None:
        curve.values.append(0.5)
        for parameter in model.parameters():
            parameter.data.fill_(float("nan"))

    monkeypatch.setattr("lab.tasks.accuracy.AccuracyCurve._measure", measure)
    figures = collapse.run(CONFIG if trainer == "pgpo" else GRPO)
    assert figures["accuracy"] == [0.5, 0.0]
    assert (figures["diverged"], figures["survived"], figures["final"]) == (1.0, 0.0, 0.0)


GRPO = {
    name: value
    for name, value in CONFIG.items()
    if name not in ("sensitivity", "success_reward_threshold")
} | {"trainer": "grpo"}


def test_grpo_has_the_same_figures_of_accuracy_on_the_same_questions() -> None:
    figures, pgpo = collapse.run(GRPO), collapse.run(CONFIG)
    assert figures["before"] == pgpo["before"]
    assert len(figures["accuracy"]) == len(pgpo["accuracy"])
    assert len(figures["rewards"]) == len(pgpo["rewards"]) == 3
    only = {"mean_multiplier", "live_steps", "multipliers", "signals"}
    assert set(pgpo) - set(figures) == only


def test_grpo_gets_the_settings_of_the_work_and_none_of_the_distillation(tmp_path: Path) -> None:
    distillation = {"distillation_alpha": 1.0, "teacher_update_rate": 0.05}
    given = collapse._grpo_arguments(GRPO | distillation, str(tmp_path))
    own = collapse._arguments(CONFIG | distillation, str(tmp_path))
    for name in ("learning_rate", "max_steps", "seed", "num_generations", "optim", "temperature"):
        assert getattr(given, name) == getattr(own, name), name
    assert given.generation_batch_size == own.generation_batch_size == 8
    assert not any(hasattr(given, name) for name in collapse.NOT_GRPO)


CIPHER = {"lab": "cipher", "success_reward_threshold": 1.0}


def test_in_the_task_of_feedback_a_step_distils_without_any_success() -> None:
    figures = collapse.run(CONFIG | CIPHER)
    assert figures["rewards"] == [0.0] * 3 and figures["live_steps"] == 3


@pytest.mark.parametrize("reward", ["whole", "share"])
def test_grpo_sees_numbers_alone(reward: str) -> None:
    right = cipher.problems(1, 1, "train")[0]["answer"]
    attempts = [right, f"- {right[2:]}"]
    numbers = collapse._numbers({"lab": "cipher", "reward": reward})
    found = numbers(prompts=["", ""], completions=attempts, answer=[right, right])
    assert found == [1.0, pytest.approx(5 / 6) if reward == "share" else 0.0]


def test_grpo_refuses_what_would_have_no_effect_on_it() -> None:
    collapse.check(GRPO)
    for setting, message in (
        ({"sensitivity": 1.0}, "sensitivity"),
        ({"control": "shuffled"}, "control: expected none with trainer grpo"),
    ):
        with pytest.raises(ValueError, match=message):
            collapse.check(GRPO | setting)
