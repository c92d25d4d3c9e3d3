"""Guards: skipped steps are counted and end in an error; a figure that leaves its band is told."""

from __future__ import annotations

import json
import math
import statistics

import pytest

from poise.trl.guards import (
    CollapseMonitor,
    NonFiniteGuard,
    NonFiniteTrainingError,
    RunningBand,
)


def test_one_more_than_the_limit_raises_and_names_step_and_checkpoint() -> None:
    guard = NonFiniteGuard(limit=2)
    guard.skipped(5, "run/checkpoint-4")
    guard.skipped(6, "run/checkpoint-4")
    message = r"not finite in 3 steps in a row.*at step 7.*last checkpoint is run/checkpoint-4"
    with pytest.raises(NonFiniteTrainingError, match=message):
        guard.skipped(7, "run/checkpoint-4")


def test_the_error_says_when_there_is_no_checkpoint() -> None:
    with pytest.raises(NonFiniteTrainingError, match="no checkpoint was written yet"):
        NonFiniteGuard(limit=0).skipped(1, None)


def _filled(values: list[float], **settings: float) -> RunningBand:
    band = RunningBand(**settings)  # type: ignore[arg-type]
    assert not any(band.update(value) for value in values)
    return band


def test_before_the_window_is_full_the_band_is_plain_mean_and_deviation() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    band = _filled(values, decay=0.05)
    assert band.mean == pytest.approx(statistics.fmean(values), rel=1e-14)
    assert band.variance == pytest.approx(statistics.pvariance(values), rel=1e-14)


def test_once_it_is_full_old_figures_fade() -> None:
    band = _filled([1.0] * 4, decay=0.25, warmup=100)
    band.update(2.0)
    assert band.mean == 1.25
    assert band.variance == 0.75 * 0.25 * 1.0


def test_the_alarm_comes_with_the_last_step_of_the_patience() -> None:
    band = _filled([1.0] * 20, patience=3)
    assert [band.update(0.0) for _ in range(3)] == [False, False, True]


def test_a_step_inside_starts_the_patience_again() -> None:
    band = _filled([1.0] * 20, patience=2)
    assert not any(band.update(value) for value in (0.0, 1.0, 0.0, 1.0, 0.0))


def test_figures_outside_do_not_move_the_band_before_the_alarm() -> None:
    band = _filled([1.0] * 20, patience=3)
    band.update(100.0)
    band.update(100.0)
    assert (band.mean, band.variance) == (1.0, 0.0)


def test_a_new_level_becomes_the_usual_one() -> None:
    band = _filled([1.0] * 20)
    alarms = [band.update(2.0) for _ in range(60)]
    assert any(alarms)
    assert not any(alarms[-20:])


def test_a_band_without_noise_has_a_floor() -> None:
    band = _filled([10.0] * 20, width=4.0, floor=0.1, patience=1)
    assert not band.update(13.9)
    assert band.update(14.2 + 4.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_figure_that_is_not_finite_is_left_out(value: float) -> None:
    band = _filled([1.0] * 20, patience=1)
    assert not band.update(value)
    assert band == _filled([1.0] * 20, patience=1)


def test_the_monitor_names_the_figure_and_both_levels() -> None:
    monitor = CollapseMonitor()
    for _ in range(20):
        assert monitor.update({"student entropy": 2.0, "reward": 0.5}) == []
    said = [monitor.update({"student entropy": 0.1, "reward": 0.5}) for _ in range(3)]
    assert said[:2] == [[], []]
    (sentence,) = said[2]
    assert sentence.startswith("student entropy has left its running band: 0.1 for 3 steps, 2 befo")


def test_a_reward_that_rises_is_no_collapse() -> None:
    monitor = CollapseMonitor()
    for _ in range(20):
        monitor.update({"reward": 0.1, "completion length": 10.0})
    said = [monitor.update({"reward": 0.9, "completion length": 90.0}) for _ in range(3)]
    assert ["completion length" in sentence for step in said for sentence in step] == [True]


def test_the_monitors_state_survives_json() -> None:
    whole, first = CollapseMonitor(), CollapseMonitor()
    figures = [1.0 + 0.01 * (i % 3) for i in range(25)] + [0.1] * 4
    sentences = [whole.update({"reward": value}) for value in figures]
    cut = 27  # between two steps outside
    for value in figures[:cut]:
        first.update({"reward": value})
    resumed = CollapseMonitor()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [resumed.update({"reward": value}) for value in figures[cut:]] == sentences[cut:]
    assert any(sentences[cut:])
    assert resumed.state_dict() == whole.state_dict()


def test_a_good_step_between_starts_the_count_again() -> None:
    guard = NonFiniteGuard(limit=1)
    for step in range(10):
        guard.skipped(step, None)
        guard.good()
    assert (guard.total, guard.consecutive) == (10, 0)
