"""Flags and YAML: read alike, and one clear line where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from poise.cli.arguments import CommandParser, option
from poise.cli.main import main


@dataclass
class Settings:
    """Some of each kind."""

    name: str | None = option(None, "A name.")
    levels: list[int] = option([1, 2], "Levels.")
    rate: float = option(0.5, "A rate of 50 %%.")
    quick: bool = option(False, "Hurry.")
    named: dict[str, Any] | None = option(None, "Values by name.")


@pytest.fixture
def parser() -> CommandParser:
    return CommandParser(Settings, prog="poise test")


def test_flags_override_the_file_and_the_file_overrides_defaults(
    parser: CommandParser, tmp_path: Path
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("name: from file\nrate: 0.25\nlevels: [3]\n")
    for config in (["--config", str(file)], [f"--config={file}"]):
        (found,) = CommandParser(Settings, prog="p").parse_args_and_config(
            [*config, "--rate", "0.75", "--quick", "--named", '{"dtype": "auto"}']
        )
        assert found == Settings("from file", [3], 0.75, True, {"dtype": "auto"})


def test_defaults_are_not_shared(parser: CommandParser) -> None:
    (first,) = parser.parse_args_and_config([])
    assert first == Settings(levels=[1, 2])
    assert Settings().levels is not Settings().levels


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--naem", "x"], r"unknown argument '--naem'; did you mean --name\?"),
        (["--xyzzy=3"], r"unknown argument '--xyzzy=3'; see poise test --help"),
        (["--quic"], r"unknown argument '--quic'; did you mean --quick\?"),
        (["stray"], "unknown argument 'stray'"),
        (["--rate", "fast"], r"argument --rate: invalid float value: 'fast' \(see poise test"),
        (["--named", "[1]"], r"--named: expected a mapping in JSON.*, found '\[1\]' \(see"),
        (["--named", "word"], r"--named: expected a mapping in JSON.*, found 'word' \(Expecting"),
        (["--config"], "--config: expected a YAML file"),
        (["--dataset", "x"], "unknown argument '--dataset'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    parser: CommandParser, words: list[str], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        parser.parse_args_and_config(words)


@dataclass
class Renamed:
    """Some under new names."""

    dataset_name: str = option("", "Data.")
    split: str = option("test", "Split, as ever.")


def test_old_names_are_taken_with_one_warning_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("dataset: of the file\nsplit: train\n")
    for words, expected in (([], "of the file"), (["--dataset=x"], "x"), (["--dataset", "x"], "x")):
        caplog.clear()
        parser = CommandParser(Renamed, prog="p")
        (found,) = parser.parse_args_and_config(["--config", str(file), *words])
        assert found == Renamed(expected, "train")
        (line,) = caplog.messages
        assert line == "--dataset is --dataset_name now; its old name goes with the next release"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "while parsing"),
        ("- 1", "must contain a YAML mapping"),
        (None, "--config: expected a YAML file, found none at"),
        ("outptu: x", "did you mean --output?"),
    ],
)
def test_a_wrong_file_is_one_line_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, complaint: str
) -> None:
    file = tmp_path / "x.yaml"
    if text is not None:
        file.write_text(text)
    assert main(["report", "--config", str(file), "run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("poise report: ") and complaint in error
    assert error.count("\n") == 1
