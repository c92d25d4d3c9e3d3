"""Rates, pauses and waits, on a clock that the test turns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from poise.isomers.build import pace
from poise.isomers.build.pace import LONGEST_WAIT, Pace, backoff, retry_after


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


def starts(clock: Clock, rate: Pace, count: int) -> list[float]:
    times = []
    for _ in range(count):
        rate.wait()
        times.append(clock.now - 100.0)
    return times


def test_starts_are_spaced_evenly(clock: Clock) -> None:
    assert starts(clock, Pace(30), 4) == pytest.approx([0, 2, 4, 6])


def test_time_that_passed_by_itself_is_not_waited_for_again(clock: Clock) -> None:
    rate = Pace(30)
    rate.wait()
    clock.now += 50
    assert starts(clock, rate, 2) == pytest.approx([50, 52])


def test_without_a_rate_nobody_waits(clock: Clock) -> None:
    assert starts(clock, Pace(), 3) == [0, 0, 0]


def test_a_pause_holds_everybody_and_a_shorter_one_does_not_end_it(clock: Clock) -> None:
    rate = Pace()
    rate.pause(7)
    rate.pause(1)
    assert starts(clock, rate, 2) == pytest.approx([7, 7])


def test_waits_double_with_chance_up_to_a_bound() -> None:
    for attempt in range(40):
        longest = min(LONGEST_WAIT, 0.5 * 2**attempt)
        assert longest / 2 <= backoff(attempt, 0.5) <= longest
    assert len({backoff(3, 1.0) for _ in range(20)}) > 1


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    assert retry_after("7") == 7.0
    assert retry_after("0.25") == 0.25
    assert retry_after("-3") == 0.0
    assert retry_after("99999") == LONGEST_WAIT
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 30 < (retry_after(soon) or 0) <= 60
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("nan") == 0.0


@pytest.mark.parametrize("value", [None, "", "soon"])
def test_an_unreadable_retry_after_is_none(value: str | None) -> None:
    assert retry_after(value) is None


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_must_be_above_zero(rate: float) -> None:
    with pytest.raises(ValueError, match="requests_per_minute"):
        Pace(rate)
