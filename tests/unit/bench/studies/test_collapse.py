"""The study of collapse, a few steps of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from poise.bench.labs import sorting
from poise.bench.studies import collapse

CONFIG: dict[str, Any] = {
    "method": "pgpo",
    "seed": 1,
    "steps": 3,
    "prompts": 2,
    "rollouts": 4,
    "test_questions": 8,
    "test_every": 2,
    "learning_rate": 1e-3,
    "distillation_mode": "full_logits",
    "sensitivity": 1.0,
    "success_reward_threshold": 0.0,  # every sibling is a demonstration: there is a signal
}


@pytest.fixture(autouse=True)
def _a_model_of_few_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    monkeypatch.setattr(sorting, "STEPS", 25)


def test_a_run_has_the_figures_that_the_table_shows() -> None:
    figures = collapse.run(CONFIG)
    assert len(figures["accuracy"]) == 2  # before, and after two of three steps
    assert figures["final"] == figures["accuracy"][-1]
    assert figures["best"] == max(figures["accuracy"][1:])
    assert figures["survived"] == float(figures["final"] >= figures["before"])
    assert len(figures["multipliers"]) == len(figures["signals"]) == 3
    assert figures["mean_multiplier"] == pytest.approx(sum(figures["multipliers"]) / 3)
    assert collapse.run(CONFIG) == figures


def test_the_shuffled_control_uses_the_same_multipliers_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = [1.5, 1.25, 1.75]
    plain = collapse._train(CONFIG)
    monkeypatch.setattr(
        collapse, "_train", _with_first(collapse._train, plain | {"multipliers": list(given)})
    )
    figures = collapse.run(CONFIG | {"control": "shuffled"})
    assert sorted(figures["multipliers"]) == sorted(given)
    assert figures["multipliers"] != given


def test_the_larger_step_is_sdpo_at_the_mean_multipliers_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    def train(config: dict[str, Any], multipliers: Any = ()) -> dict[str, Any]:
        asked.append(config)
        return {"multipliers": [1.0, 2.0, 1.5]}

    monkeypatch.setattr(collapse, "_train", train)
    collapse.run(CONFIG | {"control": "larger_step"})
    assert [(c["sensitivity"], c["learning_rate"]) for c in asked] == [
        (1.0, 1e-3),
        (0.0, pytest.approx(1.5e-3)),
    ]


def _with_first(train: Any, first: dict[str, Any]) -> Any:
    """`train`, whose first call is answered with a given result."""
    answers = [first]
    return lambda *args: answers.pop() if answers else train(*args)


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
    assert set(pgpo) - set(figures) == {"mean_multiplier", "multipliers", "signals"}


def test_grpo_gets_the_settings_of_the_work_and_none_of_the_distillation(tmp_path: Path) -> None:
    distillation = {"distillation_alpha": 1.0, "teacher_update_rate": 0.05}
    given = collapse._grpo_arguments(GRPO | distillation, str(tmp_path))
    own = collapse._arguments(CONFIG | distillation, str(tmp_path))
    for name in ("learning_rate", "max_steps", "seed", "num_generations", "optim", "temperature"):
        assert getattr(given, name) == getattr(own, name), name
    assert given.generation_batch_size == own.generation_batch_size == 8
    assert not any(hasattr(given, name) for name in collapse.NOT_GRPO)


def test_grpo_refuses_what_would_have_no_effect_on_it() -> None:
    collapse.check(GRPO)
    for setting, message in (
        ({"sensitivity": 1.0}, "sensitivity"),
        ({"control": "shuffled"}, "control: expected none with trainer grpo"),
    ):
        with pytest.raises(ValueError, match=message):
            collapse.check(GRPO | setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"trainer": "ppo"}, "trainer: expected one of pgpo, grpo, found 'ppo'"),
        ({"control": "other"}, "control: expected one of larger_step, shuffled"),
        ({"steps": 0}, "steps: expected a whole number"),
        ({"sensitivity": -1.0}, "sensitivity"),
        ({"sensitvity": 1.0}, "sensitvity"),
    ],
)
def test_settings_are_checked_before_anything_runs(setting: Any, message: str) -> None:
    collapse.check(CONFIG)
    with pytest.raises(ValueError, match=message):
        collapse.check(CONFIG | setting)
