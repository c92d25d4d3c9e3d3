"""Each mistake with `poise isomers build` is one line, before a teacher is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poise.cli.main import main
from tests.unit.isomers.build.endpoint import Endpoint, source_row

from .conftest import Call, write


def bad_row(**change: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder, source_row(0), {**source_row(1), **change})


def renamed(folder: Path) -> None:
    write(folder, {("qestion" if k == "question" else k): v for k, v in source_row(0).items()})


def blocked(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "isomers.jsonl").write_text("{}\n")


NOTHING: Callable[[Path], None] = lambda folder: None  # noqa: E731
FAULTS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no such file": (NOTHING, ["--problems", "gone.jsonl"], "gone.jsonl: expected a .jsonl file"),
    "no rows": (write, [], "at least one line with a JSON object"),
    "no column": (renamed, [], "expected a column 'prompt' or 'question', found id, qestion"),
    "empty answer": (bad_row(answer=" "), [], "row 1: expected text in the column 'answer'"),
    "no checkable answer": (bad_row(answer="who knows"), [], "an answer that can be checked"),
    "an id twice": (bad_row(id="p0"), [], "'p0' also in row 0"),
    "an unknown teacher": (NOTHING, ["--teacher", "oracle:m"], "'local:MODEL', found 'oracle:m'"),
    "no model": (NOTHING, ["--teacher", "endpoint"], "'endpoint:MODEL' or"),
    "no such local model": (NOTHING, ["--teacher", "local:./gone"], "Expected a model"),
    "no key": (NOTHING, ["--api_key_env", "MY_KEY"], "environment variable MY_KEY, found none"),
    "no endpoint": (NOTHING, ["--base_url", "http://127.0.0.1:9/v1"], "found none (ConnectError"),
    "no address": (NOTHING, ["--base_url", "localhost"], "base_url: expected an address"),
    "too many domains": (NOTHING, ["--min_domains", "3"], "min_domains: expected 1 to 2"),
    "a domain twice": (NOTHING, ["--domains", "law", "law"], "expected different names"),
    "no attempts": (NOTHING, ["--attempts", "0"], "attempts: expected 1 or more"),
    "overlap": (NOTHING, ["--max_overlap", "3"], "max_overlap: expected a value in [0, 1]"),
    "slack": (NOTHING, ["--slack", "-1"], "slack: expected 0 or more"),
    "rate": (NOTHING, ["--requests_per_minute", "0"], "requests_per_minute: expected a number"),
    "concurrency": (NOTHING, ["--concurrency", "0"], "concurrency: expected 1 or more"),
    "timeout": (NOTHING, ["--timeout", "0"], "timeout: expected a number above 0"),
    "retries": (NOTHING, ["--retries", "-1"], "retries: expected 0 or more"),
    "temperature": (NOTHING, ["--temperature", "-1"], "temperature: expected 0 or more"),
    "max_tokens": (NOTHING, ["--max_tokens", "0"], "max_tokens: expected 1 or more"),
    "output's kind": (NOTHING, ["--output", "out.json"], "output: expected a .jsonl file"),
    "its own output": (NOTHING, ["--output", "problems.jsonl"], "another file than the problems"),
    "somebody's output": (blocked, [], "a new file or one with its journal"),
    "unknown flag": (NOTHING, ["--domians", "law"], "did you mean --domains?"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_one_clear_line_before_anything_is_asked(
    fault: str, call: Call, endpoint: Endpoint, folder: Path
) -> None:
    spoil, more, message = FAULTS[fault]
    spoil(folder)
    status, _, err = call(*more)
    assert status == 2 and message in err and err.count("\n") == 1, err
    assert not endpoint.asked


@pytest.mark.parametrize("name", ["problems", "output"])
def test_a_file_that_is_not_named_is_asked_for(
    name: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    other = {"problems": ["--output", "o.jsonl"], "output": ["--problems", "problems.jsonl"]}[name]
    assert main(["isomers", "build", "--teacher", "endpoint:m", *other]) == 2
    assert f"give it with --{name}" in capsys.readouterr().err


def test_help_needs_no_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SystemExit) as left:
        main(["isomers", "build", "--help"])
    assert left.value.code == 0 and "--api_key_env" in capsys.readouterr().out
