"""Threads by the cores that are free, unless somebody names a number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from poise import threads


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Sets how many cores there are, how busy they are, and their share by a control group."""
    for name in (threads.NUMBER, threads.WAITING, "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, "_chosen", None)

    def be(cores: int, busy: int = 0, quota: str | None = None) -> None:
        threads.free_cores.cache_clear()
        monkeypatch.setattr(threads, "_allowed_cores", lambda: list(range(cores)))
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(threads, "_CGROUP", tmp_path)
        if quota is not None:
            (tmp_path / "cpu.max").write_text(quota)

        percent = [100.0 if core < busy else 0.0 for core in range(cores + 1)]
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: percent)

    yield be
    threads.free_cores.cache_clear()


@pytest.mark.parametrize(
    ("cores", "busy", "quota", "expected"),
    [
        (8, 0, None, 8),
        (8, 3, None, 5),
        (2, 2, None, 1),
        (8, 0, "400000 100000", 4),
        (8, 6, "400000 100000", 2),
        (8, 0, "50000 100000", 1),
        (8, 0, "max 100000", 8),
    ],
)
def test_free_cores_are_those_that_nobody_uses(
    machine: Callable[..., None], cores: int, busy: int, quota: str | None, expected: int
) -> None:
    machine(cores, busy, quota)
    assert threads.free_cores() == expected


def test_cores_that_are_switched_off_have_no_load(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loads are those of 0, 2, 4 and 6; three of them work."""
    machine(4)
    monkeypatch.setattr(threads, "_allowed_cores", lambda: [0, 2, 4, 6])
    monkeypatch.setattr(psutil, "cpu_percent", lambda *args, **kwargs: [100.0, 100.0, 100.0, 0.0])
    assert threads.free_cores() == 1


def test_a_system_that_does_not_tell_who_is_busy_gives_all(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_tell(*_: object, **__: object) -> None:
        raise FileNotFoundError("/proc/stat")

    machine(4, busy=2)
    monkeypatch.setattr(psutil, "cpu_percent", cannot_tell)
    assert threads.free_cores() == 4


def test_an_idle_machine_is_left_to_torch_whose_threads_sleep_when_they_wait(
    machine: Callable[..., None],
) -> None:
    machine(4)
    threads.use_free_cores()
    assert threads.NUMBER not in os.environ
    assert os.environ[threads.WAITING] == "PASSIVE"


def test_cores_are_shared_among_processes_that_work_side_by_side(
    machine: Callable[..., None],
) -> None:
    machine(8, busy=2)
    threads.use_free_cores()
    assert os.environ[threads.NUMBER] == "6"
    threads.use_free_cores(processes=2)  # our own number is no wish of the user's
    assert os.environ[threads.NUMBER] == "3"
    threads.use_free_cores(processes=9)
    assert os.environ[threads.NUMBER] == "1"


def test_what_the_user_says_stays(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(8, busy=7)
    monkeypatch.setenv(threads.NUMBER, "5")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    threads.use_free_cores(processes=2)
    assert os.environ[threads.NUMBER] == "5"
    assert threads.WAITING not in os.environ
