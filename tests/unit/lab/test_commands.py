"""`python -m lab`: experiments from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab import commands
from poise.cli.main import guard
from poise.cli.main import main as poise_main
from tests.unit.lab.toys import write

NAME = "toy"


def main(words: list[str]) -> int:
    """`python -m lab WORDS`, in this process."""
    return guard("lab", lambda: commands.main(words))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an experiment, below the working directory."""
    monkeypatch.chdir(tmp_path)
    return write(tmp_path / "experiments" / NAME, seeds=2, baseline="plain", figure={"y": "score"})


def test_an_experiment_is_run_listed_and_shown(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", NAME, "--limit", "3"]) == 0
    printed = capsys.readouterr().out
    assert "toy: 0 of 4 runs are done\n" in printed
    assert "3/3 method plain, seed 2: done in " in printed
    assert "toy: 3 of 4 runs are done, 0 failed\n" in printed
    assert main(["table", str(folder), "--output", "out/here"]) == 0
    assert Path("out/here/table.md").read_text().startswith("# toy\n")
    assert not (folder / "table.md").exists()  # and an unfinished one keeps its plain lines
    (*_, line) = (folder / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["config"] == {"method": "plain", "seed": 2}
    capsys.readouterr()
    assert main(["list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if " toy " in line)
    assert [part.strip() for part in row.split("│")[1:-1]] == ["toy", "toy", "4", "3", "1"]
    assert main(["run", NAME]) == 0
    assert len((folder / "results.jsonl").read_text().splitlines()) == 4
    assert main(["table", NAME]) == 0
    printed = capsys.readouterr().out
    assert "Study toy: 4 of 4 runs, 2 seeds." in printed
    assert "experiments/toy/table.md" in printed
    for cell in ("score (higher is better)", "shifted", "1.15 [0.515", "difference", "+1.00"):
        assert cell in printed
    names = {file.name for file in folder.iterdir() if file.is_file()}
    assert names == {"experiment.yaml", "results.jsonl.xz", "table.md", "figure.png"}
    assert main(["table", NAME]) == 0
    write(folder, seeds=[7])
    assert main(["table", NAME]) == 2
    assert "found none; 4 lines are of other settings; see" in capsys.readouterr().err


def test_a_failed_run_is_shown_and_so_is_the_exit_status(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder, seeds=2, fixed={"fail_at": 1})
    assert main(["run", NAME]) == 1
    printed = capsys.readouterr()
    assert "1/4 method plain, seed 1: failed" in printed.out
    assert "toy: 2 of 4 runs are done, 2 failed\n" in printed.out
    assert printed.err.count("RuntimeError: the toy is broken") == 2


def test_a_line_that_was_cut_off_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", NAME, "--limit", "1"]) == 0
    with (folder / "results.jsonl").open("a") as file:
        file.write('{"key": "12')
    assert main(["run", NAME, "--limit", "1"]) == 0
    assert "toy: results.jsonl: passed over, as they are cut off: lines 2\n" in (
        capsys.readouterr().out
    )
    keys = [line[:8] for line in (folder / "results.jsonl").read_text().splitlines()]
    assert keys == ['{"key": ', '{"key": ', '{"key": ']


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "unknown subcommand 'rum'; did you mean 'run'?"),
        (["run", "tyo"], "tyo: expected an experiment"),
        (["run", NAME, "--jobs", "0"], "--jobs: expected at least 1, found 0"),
        (["run", NAME, "--limit", "0"], "--limit: expected at least 1, found 0"),
        (["run", NAME, "--seeds", "4"], "unknown argument '--seeds'"),
        (
            ["table", NAME],
            "toy: expected results of these settings, found none; see `python -m lab run --help`",
        ),
    ],
)
def test_a_mistake_is_one_line(
    folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (folder / "results.jsonl").exists()


def test_an_experiment_that_cannot_be_read_does_not_hide_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder.parent / "bad", seeds=0)
    assert main(["list"]) == 2
    printed = " ".join(capsys.readouterr().out.split())
    assert "│ toy │" in printed.replace("  ", " ") and "one n for 1 to n; found 0" in printed


def test_the_old_command_names_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    assert poise_main(["bench", "--help"]) == 0
    printed = capfd.readouterr()
    assert printed.err == "poise bench: use `python -m lab --help` in the repository's root\n"
    assert printed.out.startswith("usage: python -m lab SUBCOMMAND")
    monkeypatch.chdir(tmp_path)
    assert poise_main(["bench", "list"]) == 2
    printed = capfd.readouterr()
    assert "python -m lab list" in printed.err and printed.out == ""
