"""What is missing is run, once, whatever happens meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab import runner
from lab.experiment import Experiment
from lab.results import Results
from poise.versions import software_versions

from .toys import process, run_missing, toy


def lines(experiment: Experiment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Results(experiment.folder).path.read_text().splitlines()]


def starts(folder: Path) -> dict[str, int]:
    """Run -> how often it was begun."""
    return {p.stem: p.read_text().count("\n") for p in folder.glob("*.started")}


def wait_for(path: Path) -> None:
    """Waits until something is written into it."""
    until = time.monotonic() + 300
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < until, f"{path.name} never came"
        time.sleep(0.01)


def test_a_line_says_what_ran_where_and_with_what(tmp_path: Path) -> None:
    experiment = toy(tmp_path, seeds=1, grid={"x": [0.5]})
    outcomes = run_missing(experiment)
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    first, second = lines(experiment)
    assert first["config"] == {"method": "plain", "x": 0.5, "seed": 1}
    assert first["figures"] == {"score": 0.6}
    assert second["figures"] == {"score": 1.6}
    assert first["key"] == experiment.runs()[0].key and first["study"] == "toy"
    assert first["versions"] == software_versions() and len(first["source"]) == 10
    assert {"poise", "torch", "trl", "transformers", "peft"} <= set(first["versions"])
    assert first["hardware"]["processor"] and first["hardware"]["cores"] >= 1
    assert first["hardware"]["threads"] >= 1 and "gpu" in first["hardware"]
    assert first["seconds"] >= 0 and first["time"].endswith("+00:00")


def test_what_a_study_writes_into_its_settings_changes_no_key(tmp_path: Path) -> None:
    experiment = toy(tmp_path, seeds=1, fixed={"nested": {"a": 1}})
    run_missing(experiment)
    assert [line["config"]["nested"] for line in lines(experiment)] == [{"a": 1}] * 2
    assert runner.missing(experiment) == []


def test_a_limit_counts_what_was_done_here(tmp_path: Path) -> None:
    experiment = toy(tmp_path)
    first, *_ = experiment.runs()
    with Results(tmp_path).claim(first.key):
        outcomes = run_missing(experiment, limit=2)
    assert [outcome.status for outcome in outcomes] == ["elsewhere", "done", "done"]
    assert len(lines(experiment)) == 2


def test_a_study_that_raises_leaves_no_line_and_the_others_go_on(tmp_path: Path) -> None:
    experiment = toy(tmp_path, fixed={"fail_at": 2})
    outcomes = run_missing(experiment)
    assert [o.status for o in outcomes] == ["done", "done", "failed", "failed", "done", "done"]
    assert "RuntimeError: the toy is broken" in outcomes[2].error
    assert [line["config"]["seed"] for line in lines(experiment)] == [1, 1, 3, 3]
    assert [run.place["seed"] for run in runner.missing(experiment)] == [2, 2]


@pytest.mark.slow
def test_a_run_that_is_killed_fails_alone(tmp_path: Path) -> None:
    experiment = toy(tmp_path, methods={"plain": {}}, seeds=6, fixed={"killed_at": 2})
    out, _ = process(tmp_path, jobs=2).communicate(timeout=300)
    status = [line.split()[0] for line in out.splitlines()]
    # "elsewhere": it was done, but the pool ended before it could say so.
    assert len(status) == 6 and status.count("failed") == 1
    assert [run.place["seed"] for run in runner.missing(experiment)] == [2]


@pytest.mark.slow
def test_where_every_process_is_killed_it_ends(tmp_path: Path) -> None:
    methods = {str(i): {"killed_at": 1} for i in range(8)}
    experiment = toy(tmp_path, methods=methods, seeds=1)
    out, _ = process(tmp_path, jobs=2).communicate(timeout=300)
    status = [line.split()[0] for line in out.splitlines()]
    assert set(status) == {"failed"} and runner.PATIENCE <= len(status) < 8
    assert len(runner.missing(experiment)) == 8


def test_a_figure_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    experiment = toy(tmp_path, seeds=1, methods={"a": {"shift": float(10**308)}}, grid={"x": [1]})
    config = {**experiment.runs()[0].config, "shift": float("inf")}
    run = runner.Run("toy", {}, config)
    assert runner.do(Results(tmp_path), run).status == "failed"
    assert Results(tmp_path).read() == ({}, [])


def test_settings_and_data_are_asked_for_before_anything_runs(
    tmp_path: Path,
) -> None:
    for shift, message in (
        ({"shfit": 1}, r"method shifted, seed 1: .*found \['shfit'\]"),
        ({"shift": "absent"}, "expected data of the toy, found none"),
    ):
        experiment = toy(tmp_path, methods={"plain": {}, "shifted": shift})
        with pytest.raises(ValueError, match=message):
            runner.check(experiment, runner.missing(experiment))
    runner.check(toy(tmp_path), [])


def test_a_kill_in_the_middle_loses_only_the_run_under_way(tmp_path: Path) -> None:
    folder, log = tmp_path / "toy", tmp_path / "log"
    log.mkdir()
    experiment = toy(folder, seeds=2, fixed={"log": str(log), "wait_for": "plain-0-2"})
    other = process(folder)
    wait_for(log / "plain-0-2.started")
    other.kill()
    other.communicate()
    assert [line["config"]["seed"] for line in lines(experiment)] == [1, 1]
    (log / "go").touch()
    assert [outcome.status for outcome in run_missing(experiment)] == ["done", "done"]
    assert [line["config"]["seed"] for line in lines(experiment)] == [1, 1, 2, 2]
    assert starts(log) == {"plain-0-1": 1, "shifted-0-1": 1, "plain-0-2": 2, "shifted-0-2": 1}


@pytest.mark.slow
def test_children_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    folder, log = tmp_path / "toy", tmp_path / "log"
    log.mkdir()
    toy(folder, seeds=1, fixed={"log": str(log), "together": 3})  # a third never comes
    other = process(folder, jobs=2)
    files = [log / f"{method}-0-1.started" for method in ("plain", "shifted")]
    for file in files:
        wait_for(file)
    children = [psutil.Process(int(file.read_text())) for file in files]
    other.kill()
    other.communicate()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert all(child.status() == psutil.STATUS_ZOMBIE for child in alive)


def test_two_processes_share_the_runs_and_tear_no_line(tmp_path: Path) -> None:
    folder, log = tmp_path / "toy", tmp_path / "log"
    log.mkdir()
    # No run ends before two have begun, so both processes take part.
    experiment = toy(folder, seeds=8, fixed={"log": str(log), "together": 2})
    both = [process(folder) for _ in range(2)]
    printed = [other.communicate()[0].splitlines() for other in both]
    assert [other.returncode for other in both] == [0, 0]
    assert len(lines(experiment)) == 16 and runner.missing(experiment) == []
    assert Results(folder).read()[1] == []
    assert set(starts(log).values()) == {1} and len(starts(log)) == 16
    done = [sum(line.startswith("done") for line in text) for text in printed]
    assert sum(done) == 16 and min(done) >= 1


@pytest.mark.slow
def test_several_jobs_run_at_once(tmp_path: Path) -> None:
    folder, log = tmp_path / "toy", tmp_path / "log"
    log.mkdir()
    experiment = toy(folder, seeds=2, fixed={"log": str(log), "together": 2, "fail_at": 2})
    other = process(folder, jobs=2)
    printed = other.communicate()[0].splitlines()
    assert other.returncode == 0
    assert sorted(text.split()[0] for text in printed) == ["done", "done", "failed", "failed"]
    assert sorted(line["config"]["seed"] for line in lines(experiment)) == [1, 1]
