"""What the teacher is shown: a random successful sibling, and feedback on the rollout."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.logging import MultiProcessAdapter

from poise.training.teacher_context import RolloutTeacherContextBuilder

from .teacher_batches import GROUP, build, shown_siblings, stand_in, texts


@pytest.fixture
def make_trainer(make_config: Callable[..., Any]) -> Callable[..., Any]:
    return partial(stand_in, make_config)


# Demonstrations


def test_every_successful_sibling_is_shown_equally_often(make_trainer: Any) -> None:
    trainer = make_trainer()
    builder, seen, steps = RolloutTeacherContextBuilder(trainer), Counter[tuple[int, Any]](), 600
    for trainer._step in range(steps):
        seen.update(enumerate(shown_siblings(build(builder, [1.0, 1.0, 0.0, 1.0]))))
    expected = {(i, j) for i in range(4) for j in (0, 1, 3) if i != j}
    assert seen.keys() == expected
    for (i, _), count in seen.items():
        share = steps / (3 if i == 2 else 2)
        assert abs(count - share) < 5 * share**0.5


def test_a_sample_may_be_shown_itself_on_request(make_trainer: Any) -> None:
    trainer = make_trainer(dont_reprompt_on_self_success=False)
    builder, seen = RolloutTeacherContextBuilder(trainer), set()
    for trainer._step in range(100):
        seen.update(enumerate(shown_siblings(build(builder, [1.0, 1.0, 0.0, 0.0]))))
    assert seen == {(i, j) for i in range(4) for j in (0, 1)}


def test_demonstrations_come_from_the_samples_own_group(make_trainer: Any) -> None:
    trainer = make_trainer()
    builder = RolloutTeacherContextBuilder(trainer)
    for trainer._step in range(20):
        shown = shown_siblings(build(builder, [1.0] * 12))
        assert all(j is not None and i // GROUP == j // GROUP for i, j in enumerate(shown))


def test_without_a_success_the_sample_is_left_out(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer())
    built = build(builder, [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.9, 0.0])
    assert shown_siblings(built) == [None, None, None, None, None, 4, 4, 4]
    assert built["self_distillation_mask"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert texts(built)[0] == "0a"  # the prompt itself, then the completion


def test_successes_are_not_shown_when_they_are_not_wanted(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer(use_successful_as_teacher=False))
    assert shown_siblings(build(builder, [1.0] * 4)) == [None] * 4


def test_the_draw_is_that_of_the_seed_and_the_step(make_trainer: Any) -> None:
    def draws(seed: int) -> list[list[int | None]]:
        trainer = make_trainer(seed=seed)
        builder, found = RolloutTeacherContextBuilder(trainer), []
        for trainer._step in range(20):
            found.append(shown_siblings(build(builder, [1.0] * 8)))
        return found

    assert draws(3) == draws(3)
    assert draws(3) != draws(4)
    assert len({tuple(draw) for draw in draws(3)}) > 15


def test_the_draw_leaves_the_runs_random_numbers_alone(make_trainer: Any) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer())
    states = random.getstate(), torch.get_rng_state()
    build(builder, [1.0] * 8)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_in_evaluation_groups_have_their_own_size(make_trainer: Any) -> None:
    trainer = make_trainer()
    trainer.model.training = False
    shown = shown_siblings(build(RolloutTeacherContextBuilder(trainer), [1.0, 0.0, 0.0, 1.0]))
    assert shown == [None, 0, 3, None]


@pytest.mark.parametrize(("removes", "shown"), [(True, "b"), (False, "<think>why\nnot</think> b")])
def test_thinking_is_cut_from_a_demonstration_on_request(
    make_trainer: Any, removes: bool, shown: str
) -> None:
    trainer = make_trainer(remove_thinking_from_demonstration=removes)
    said = "<think>why\nnot</think> b"
    trainer.processing_class = SimpleNamespace(decode=lambda ids, **options: said)
    builder = RolloutTeacherContextBuilder(trainer)
    assert builder._demonstration_text(torch.tensor([3])) == shown


# Feedback


@pytest.mark.parametrize(
    ("rollout", "static", "shown"),
    [
        (None, None, ["", "", "", ""]),
        (None, ["s", None, "t", ""], ["s", "", "t", ""]),
        (["r", None, "q", None], None, ["r", "", "q", ""]),
        (["r", None, " ", ""], ["s", "s", "s", "s"], ["r", "s", "s", "s"]),
    ],
)
def test_feedback_on_the_rollout_goes_before_that_of_the_row(
    make_trainer: Any, rollout: Any, static: Any, shown: list[str]
) -> None:
    builder = RolloutTeacherContextBuilder(make_trainer(rollout_feedback=rollout))
    built = build(builder, [0.0] * 4, feedbacks=static)
    expected = [f"0::{text}{c}" if text else f"0{c}" for text, c in zip(shown, "abcd", strict=True)]
    assert texts(built) == expected
    assert built["self_distillation_mask"].tolist() == [float(bool(text)) for text in shown]


def test_feedback_may_be_kept_for_samples_without_a_demonstration(make_trainer: Any) -> None:
    only = {"environment_feedback_only_without_solution": True}
    trainer = make_trainer(rollout_feedback=["x"] * 4, **only)
    built = build(RolloutTeacherContextBuilder(trainer), [1.0, 0.0, 0.0, 0.0])
    assert texts(built) == ["0::xa", "0:a:b", "0:a:c", "0:a:d"]


@pytest.mark.parametrize("is_random", [True, False])
def test_feedback_that_the_teacher_will_not_see_is_told(
    make_trainer: Any, caplog: pytest.LogCaptureFixture, is_random: bool
) -> None:
    MultiProcessAdapter.warning_once.cache_clear()
    trainer = make_trainer(random_demonstration=is_random, include_environment_feedback=False)
    built = build(RolloutTeacherContextBuilder(trainer), [0.0] * 4, feedbacks=["hint"] * 4)
    assert shown_siblings(built) == [None] * 4
    assert "include_environment_feedback=False" in caplog.text
