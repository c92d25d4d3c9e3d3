"""When a teacher that stands still is refreshed, by which figures, and what a checkpoint keeps."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from typing import Any

import pytest
import torch

from poise.pgpo.refresh import RefreshGate, RefreshOnce
from poise.pgpo.teacher import Teacher, add_teacher_adapter, copy_as_teacher

from .teachers import full_model, lora_model, move

CALM = {"student entropy": 1.0, "entropy gap": 0.1, "completion length": 20.0}
LOW, HIGH = [0.1, 0.3] * 5, [0.5, 0.7] * 5  # windows of ten


def _refreshes(gate: RefreshGate, rewards: Iterable[float], **figures: float) -> list[int]:
    """Numbers of the steps, from 1, that refresh."""
    return [
        step
        for step, reward in enumerate(rewards, 1)
        if gate.update({**CALM, **figures, "reward": reward})
    ]


@pytest.mark.parametrize(
    ("at", "steps", "expected"), [(0.4, 100, 40), (0.5, 3, 2), (0.1, 2, 1), (0.99, 10, 10)]
)
def test_once_is_after_its_share_of_the_steps(at: float, steps: int, expected: int) -> None:
    rule = RefreshOnce(at)
    told = [step for step in range(1, steps + 1) if rule.update({}, step, steps)]
    assert told == [expected] and rule.refreshes == 1


def test_once_is_once_in_a_run_that_is_resumed_with_more_steps() -> None:
    rule, resumed = RefreshOnce(0.5), RefreshOnce(0.5)
    assert rule.update({}, 5, 10)
    resumed.load_state_dict(json.loads(json.dumps(rule.state_dict())))
    assert not any(resumed.update({}, step, 40) for step in range(6, 41))


@pytest.mark.parametrize("rule", [RefreshOnce(0.5), RefreshGate()])
@pytest.mark.parametrize("state", [{}, {"a": 1}, {"first": []}])
def test_a_state_that_is_not_whole_is_refused(rule: Any, state: Any) -> None:
    with pytest.raises(ValueError, match=r"state: expected refreshes.*, found .*; give what"):
        rule.load_state_dict(state)
    with pytest.raises(ValueError, match=r"teacher of kind .*, but it holds one of kind None"):
        _teacher(False, rule)[1].load_progress(state)


def test_the_gate_opens_with_the_first_whole_window_of_higher_rewards() -> None:
    assert _refreshes(RefreshGate(), LOW + HIGH) == [20]
    assert _refreshes(RefreshGate(), LOW + LOW + HIGH)[0] > 20


def test_the_rise_is_measured_against_the_noise() -> None:
    error = math.sqrt(2 * statistics.variance(LOW) / 10)
    for errors, expected in ((2.9, []), (3.1, [20])):
        assert _refreshes(RefreshGate(), LOW + [r + errors * error for r in LOW]) == expected


def test_rewards_that_fall_or_stay_open_nothing() -> None:
    assert _refreshes(RefreshGate(), HIGH + LOW * 5) == []
    assert _refreshes(RefreshGate(), [0.25] * 100) == []


def test_after_a_refresh_the_next_rise_is_from_the_level_that_follows_it() -> None:
    gate = RefreshGate()
    assert _refreshes(gate, LOW + HIGH + HIGH * 3) == [20]
    assert _refreshes(gate, [r + 0.4 for r in HIGH])[-1:] != []
    assert gate.refreshes == 2


def test_noise_alone_seldom_opens_the_gate() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.bernoulli(torch.full((40, 120, 32), 0.5), generator=generator).mean(2)
    share = sum(bool(_refreshes(RefreshGate(), row)) for row in rewards.tolist()) / 40
    assert 0 < share < 0.25  # one in ten, and three standard errors of that


@pytest.mark.parametrize("name", CALM)
def test_a_figure_outside_its_band_keeps_the_gate_shut(name: str) -> None:
    gate = RefreshGate()
    usual = [math.sin(step) / 10 + 0.2 for step in range(30)]
    assert _refreshes(gate, usual) == []
    # Two steps outside, which the band does not take, while the reward has risen far.
    gate.last = [0.9, 0.8] * 5
    for value in (CALM[name] * 50, -CALM[name] * 50):
        assert gate.update({**CALM, name: value, "reward": 0.9}) is None
    assert gate.update({**CALM, "reward": 0.9}) is not None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_whose_figures_are_not_finite_opens_nothing(value: float) -> None:
    gate = RefreshGate()
    assert _refreshes(gate, LOW + HIGH[:-1]) == []
    before = gate.state_dict()
    assert gate.update({**CALM, "reward": value}) is None
    assert gate.state_dict()["last"] == before["last"]
    assert gate.update({**CALM, "student entropy": value, "reward": HIGH[-1]}) is None
    assert gate.update({**CALM, "reward": HIGH[-1]}) is not None


def test_a_step_without_a_reward_leaves_the_windows_as_they_are() -> None:
    gate = RefreshGate()
    told = []
    for reward in LOW + HIGH:
        told += [gate.update({**CALM, "reward": reward}), gate.update(CALM)]
    assert [bool(why) for why in told] == [False] * 38 + [True, False]


def test_a_saved_gate_goes_on_as_it_was() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = (torch.rand(80, generator=generator) + torch.arange(80) / 40).tolist()
    lengths = (20 + torch.rand(80, generator=generator)).tolist()
    figures = [
        {**CALM, "completion length": length, "reward": reward}
        for length, reward in zip(lengths, rewards, strict=True)
    ]
    whole = RefreshGate()
    expected = [whole.update(f) for f in figures]
    assert sum(why is not None for why in expected) >= 2
    for cut in (1, 15, 25, 50):
        first, resumed = RefreshGate(), RefreshGate()
        found = [first.update(f) for f in figures[:cut]]
        resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
        found += [resumed.update(f) for f in figures[cut:]]
        assert found == expected and resumed == whole


def _teacher(lora: bool, rule: Any) -> tuple[Any, Teacher]:
    if lora:
        model = lora_model()
        add_teacher_adapter(model, from_student=True)
        return model, Teacher(model, None, rule)
    model = full_model()
    return model, Teacher(model, copy_as_teacher(model), rule)


def _students(model: Any) -> dict[str, torch.Tensor]:
    return {
        name.replace(".default", ".teacher"): param.detach().clone()
        for name, param in model.named_parameters()
        if param.requires_grad
    }


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_the_refreshed_teacher_is_the_student_of_its_step_and_stands_still(lora: bool) -> None:
    model, teacher = _teacher(lora, RefreshOnce(0.5))
    expected = _students(model)
    for step in range(1, 7):
        move(model)
        why = teacher.update({}, step, 6)
        assert (why is not None) == (step == 3)
        if step == 3:
            expected = _students(model)
        found = teacher.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    _, resumed = _teacher(lora, RefreshOnce(0.5))
    resumed.load_progress(json.loads(json.dumps(teacher.progress())))
    resumed.load_state_dict(teacher.state_dict())
    assert resumed.update({}, 6, 6) is None
    assert all(torch.equal(resumed.state_dict()[n], value) for n, value in expected.items())


def test_a_teacher_of_another_kind_is_not_restored() -> None:
    _, once = _teacher(False, RefreshOnce(0.5))
    _, gated = _teacher(False, RefreshGate())
    with pytest.raises(ValueError, match=r"kind 'gated', but .* kind 'once'.*teacher_refresh"):
        gated.load_progress(once.progress())
