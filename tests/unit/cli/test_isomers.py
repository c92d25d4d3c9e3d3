"""`poise isomers`: generates, validates and shows; a mistake is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poise.cli.isomers import SUBCOMMANDS
from poise.cli.main import main

TESTS = ["generate", "--output", "x.jsonl", "--tests"]


def run(*words: object) -> int:
    return main(["isomers", *map(str, words)])


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    path = tmp_path / "sets.jsonl"
    assert run("generate", "--output", path, "--count", 6, "--cue", "train", "--seed", 2) == 0
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in SUBCOMMANDS)
    assert set(SUBCOMMANDS) == {"generate", "build", "validate", "show"}
    assert run() == 2
    for name in SUBCOMMANDS:
        with pytest.raises(SystemExit) as stop:
            run(name, "--help")
        assert stop.value.code == 0
        assert f"usage: poise isomers {name}" in capsys.readouterr().out


def test_sets_are_generated_and_are_sound(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(sets)
    assert len(rows) == 24
    assert {row["domain"] for row in rows} == {"mathematics", "medicine", "law", "science"}
    assert run("validate", sets) == 0
    assert capsys.readouterr().out.endswith(f"No faults in {sets}\n")


def test_test_sets_are_generated(tmp_path: Path) -> None:
    path = tmp_path / "tests.jsonl"
    assert run("generate", "--output", path, "--count", 2, "--tests", "--cue", "train",
               "--families", "rates", "ordering", "--split", "test") == 0  # fmt: skip
    rows = read(path)
    assert len({row["test"] for row in rows}) == 6
    assert {row["family"] for row in rows} <= {"rates", "ordering"}
    assert run("validate", path) == 0


def test_test_sets_are_told_in_the_domains_of_training(tmp_path: Path) -> None:
    path = tmp_path / "tests.jsonl"
    assert run("generate", "--output", path, "--count", 1, "--tests", "--domains", "law",
               "--families", "rates", "--split", "test") == 0  # fmt: skip
    rows = read(path)
    assert {r["domain"] for r in rows if r["test"] == "in_distribution"} == {"law"}
    assert len({r["domain"] for r in rows if r["test"] == "unseen_domains"} - {"law"}) == 5


def test_faults_are_listed_and_fail(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(sets)
    rows[1]["prompt"] = " "
    rows[2]["answer"] = "perhaps"
    sets.write_text("\n".join(map(json.dumps, rows[:-1])))
    capsys.readouterr()
    assert run("validate", sets) == 2
    printed = capsys.readouterr().out
    assert f"{sets}, line 2, set {rows[1]['isomer_id']}: empty: expected a filled prompt" in printed
    assert f"{sets}, line 21, set {rows[20]['isomer_id']}: warning: missing domain" in printed
    assert printed.endswith("Faults found: 3, warnings: 1\n")
    assert run("validate", sets, "--limit", 1) == 2
    assert "... and 3 more" in capsys.readouterr().out


def test_warnings_alone_do_not_fail(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets.write_text("\n".join(map(json.dumps, read(sets)[:-1])))
    capsys.readouterr()
    assert run("validate", sets) == 0
    assert capsys.readouterr().out.endswith(f"No faults in {sets}, warnings: 1\n")


def test_sets_are_shown_side_by_side(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read(sets)
    capsys.readouterr()
    assert run("show", sets, "--count", 2) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("mathematics", "medicine", "law", "science"))
    assert str(rows[0]["isomer_id"]) in printed and str(rows[4]["isomer_id"]) in printed
    assert str(rows[8]["isomer_id"]) not in printed
    assert "2 of 6 sets" in printed
    assert run("show", sets, "--sets", 1) == 0
    printed = capsys.readouterr()
    assert "1 of 6 sets" in printed.out and "--sets is --count now" in printed.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shwo"], "unknown subcommand 'shwo'; did you mean 'show'?"),
        (["zzz"], "unknown subcommand 'zzz'; expected one of generate"),
        (["generate"], "expected --output FILE.jsonl, found none"),
        (["generate", "--output", "x.csv"], "expected --output FILE.jsonl, found x.csv"),
        (["generate", "--output", "x.jsonl", "--cue", "on"], "cue: expected one of off"),
        (["generate", "--output", "x.jsonl", "--cuont", "1"], "unknown argument '--cuont'"),
        (
            ["generate", "--output", "x.jsonl", "--cue_strength", "0.7"],
            "--cue_strength: expected with --cue train, found --cue off",
        ),
        (["validate", "none.jsonl"], "none.jsonl: expected a .jsonl file"),
        (["validate", "none.jsonl", "--limit", "0"], "--limit: expected at least 1, found 0"),
        ([*TESTS, "--cue", "random"], "--tests: expected --cue 'off' or 'train'"),
        ([*TESTS, "--phrasings", "unseen"], "--tests: expected --cue 'off' or 'train'"),
        (["validate"], "the following arguments are required: FILE"),
        (["show", "none.jsonl"], "none.jsonl: expected a .jsonl file"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"poise isomers: {message}") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_files_are_not_replaced_unasked(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sets.read_text()
    assert run("generate", "--output", sets, "--count", 2) == 2
    assert "give --overwrite to replace it" in capsys.readouterr().err
    assert sets.read_text() == before
    assert run("generate", "--output", sets, "--count", 2, "--overwrite") == 0
    assert len(read(sets)) == 8


def test_rows_that_are_no_isomers_are_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "x"}\n')
    assert run("show", path) == 2
    assert "expected a column 'isomer_id'" in capsys.readouterr().err
    path.write_text('{"isomer_id": "a", "domain": "law", "prompt": "x", "completion": "y"}\n')
    assert run("show", path, "--count", 0) == 2
    assert "--count: expected at least 1" in capsys.readouterr().err


def test_a_single_domain_is_said_to_be_no_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    assert run("generate", "--output", path, "--count", 1, "--domains", "law") == 0
    assert "law alone" in capsys.readouterr().err
