"""The demo: its jobs in processes, what the screen says, its page."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from poise.cli.main import guard
from poise.demo.act_one import parse
from poise.demo.command import RUNS
from poise.demo.pool import Job, JobError, run_jobs, screen
from poise.demo.report import write_demo_report
from tests.unit.evaluate.constructed import question, write_evaluation


def job(work: str, name: str = "job", **arguments: Any) -> Job:
    return Job(name, f"tests.unit.demo.jobs:{work}", arguments, cost=1.0)


def test_jobs_are_done_and_what_they_print_is_in_the_log(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    jobs = [job("write", path.name, path=str(path)) for path in paths]
    said: list[tuple[str, float]] = []
    run_jobs(jobs, tmp_path / "log.txt", lambda name, share, text: said.append((name, share)))
    assert [path.read_text() for path in paths] == ["written"] * 3
    assert (tmp_path / "log.txt").read_text().count("said by a job") == 3
    for path in paths:
        assert [share for name, share in said if name == path.name] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("work", "complaint"), [("fail", "job: no such luck"), ("vanish", "ended by itself.*job")]
)
def test_a_job_that_fails_is_an_error_that_names_the_log(
    tmp_path: Path, work: str, complaint: str
) -> None:
    with pytest.raises(JobError, match=rf"{complaint}.*log\.txt"):
        run_jobs([job(work)], tmp_path / "log.txt", lambda *said: None)


def test_a_job_that_fails_is_one_line_for_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        run_jobs([job("fail")], tmp_path / "log.txt", lambda *said: None)
        return 0

    assert guard("poise demo", work) == 2
    assert capsys.readouterr().err.startswith("poise demo: job: no such luck (output in ")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_screen_names_the_jobs(tmp_path: Path, terminal: bool) -> None:
    jobs = [job("write", "a"), job("write", "b")]
    with (
        (tmp_path / "screen").open("w") as file,
        screen(jobs, Console(file=file, force_terminal=terminal, width=100)) as show,
    ):
        show("a", 0.5, "step 3 of 6")
        show("a", 0.5, "step 3 of 6")
    said = (tmp_path / "screen").read_text()
    assert "25 %" in said and "step 3 of 6" in said and "b" not in said
    if not terminal:
        assert said.count("25 %") == 1  # a line now and then


def test_lines_without_a_terminal_name_what_runs_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 20.0)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    jobs = [job("write", name) for name in "abc"]
    with (tmp_path / "screen").open("w") as file, screen(jobs, Console(file=file)) as show:
        show("a", 0.0, "starting")
        show("b", 0.5, "step 1 of 2")
        show("a", 0.5, "step 2 of 4")
        show("b", 1.0, "done")
        show("c", 0.1, "starting")
    written = (tmp_path / "screen").read_text().split("\n")  # some versions of rich end it twice
    lines = [line.partition(" left  ") for line in written if line]
    assert [names for _, _, names in lines] == [
        "a: starting",
        "a: starting; b: step 1 of 2",
        "a: step 2 of 4; b: step 1 of 2",
        "a: step 2 of 4; b: done",
        "a: step 2 of 4; c: starting",
    ]
    assert lines[0][0] == "0 %, -:--:--"
    assert re.fullmatch(r"53 %, 0:0\d:\d\d", lines[-1][0])


def test_help_is_the_demos_and_needs_no_torch() -> None:
    code = (
        "import sys; from poise.demo.command import main\n"
        "try: main(['--help'])\n"
        "finally: assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: poise demo"), done.stderr


def test_no_setting_of_an_arm_is_without_effect(tmp_path: Path) -> None:
    """A setting without effect warns, and warnings are errors here."""
    configs = {name: parse(tmp_path, 1, flags)[1] for name, flags in RUNS.items()}
    distances = {name: config.distance_control() for name, config in configs.items()}
    assert distances["sdpo"] is None and distances["pgpo"].target == 0.1


def records(run: Path, name: str, right: int) -> None:
    """Ten questions, of which so many are right."""
    sampling = {"k": 1, "dtype": "float32"}
    questions = [
        question(
            str(i),
            "A" if i < right else "B",
            prompt="Options: xenon, zinc\nQuestion: Which is a <gas>?\nAnswer:",
            completions=(" xenon" if i < right else " zinc",),
        )
        for i in range(10)
    ]
    write_evaluation(run / f"evaluation/{name}.jsonl", questions, sampling=sampling)


def test_the_page_says_what_was_shown_and_what_was_not(tmp_path: Path) -> None:
    for name, after in (("pgpo", 10), ("sdpo", 9)):
        records(tmp_path / name, "before", 2)
        records(tmp_path / name, "after", after)
        line = {"step": 1, "self_distillation/reward_mean": 0.5, "pgpo/multiplier": 1.0}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    toys = [tmp_path / "isomers-1.json", tmp_path / "isomers-2.json"]
    for seed, path in enumerate(toys, start=1):
        accuracy = {"plain LoRA": {"the cue misleads": 0.5}, "IGA": {"the cue misleads": 0.8}}
        path.write_text(json.dumps({"seed": seed, "accuracy": accuracy}))
    said = write_demo_report(tmp_path / "report.html", tmp_path / "pgpo", tmp_path / "sdpo", toys)
    page = (tmp_path / "report.html").read_text()
    assert "PGPO raised accuracy on 10 unseen questions from 20.0" in said[0]
    assert "plain LoRA is right in 50 % and IGA in 80 %; +30.0 points on seed 1, " in said[1]
    for text in (
        "Not shown",
        "does not differ clearly (+10.0",
        "100 % after it",
        "&lt;gas&gt;",
        "xenon",
        "seeds 1, 2",
    ):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page
