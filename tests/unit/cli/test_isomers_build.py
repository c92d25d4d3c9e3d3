"""`poise isomers build` from the command line, against a local endpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poise.cli.main import main
from tests.tiny import save_tiny_model
from tests.unit.isomers.build.endpoint import (
    KEY,
    Asked,
    Endpoint,
    Reply,
    rewritten,
    running_endpoint,
    source_row,
)

PROBLEMS = 6
DOMAINS = ("law", "sports")
Call = Callable[..., tuple[int, str, str]]


def write(folder: Path, *rows: dict[str, Any], name: str = "problems.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(endpoint: Endpoint) -> list[str]:
    return [
        "isomers", "build", "--problems", "problems.jsonl", "--output", "out/isomers.jsonl",
        "--teacher", "endpoint:m", "--base_url", endpoint.url, "--domains", *DOMAINS,
    ]  # fmt: skip


def lines(folder: Path, what: str = "") -> list[dict[str, Any]]:
    path = folder / "out" / f"isomers{what}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def secrets_in(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with problems, and the key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write(tmp_path, *map(source_row, range(PROBLEMS)))
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], endpoint: Endpoint, folder: Path) -> Call:
    def run(*more: str) -> tuple[int, str, str]:
        return main([*words(endpoint), *more]), *capsys.readouterr()

    return run


def test_the_key_is_in_no_file_and_no_output_whatever_happens(
    call: Call, endpoint: Endpoint, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mood(endpoint: Endpoint, asked: Asked) -> Reply | None:
        """Failures and replies that repeat the key."""
        told = f"your key {KEY}"
        if endpoint.count(asked) == 1:
            return Reply(status=500, raw=told, headers={"Retry-After": "0.01"})
        if asked.each < 5:
            return Reply(told)
        return Reply(status=400, raw=told) if asked.each == 5 else None

    endpoint.mood = mood
    status, out, err = call()
    assert status == 0 and KEY not in out + err
    rejects = lines(folder, ".rejects")
    assert len(rejects) == 6 and "[key]" in json.dumps(rejects)
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "x")
    status, out, err = call("--output", "other.jsonl")
    assert status == 2 and KEY not in out + err
    assert secrets_in(folder) == []


def start(endpoint: Endpoint, folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "poise.cli.main", *words(endpoint), "--concurrency", "2", *more],
        cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OPENAI_API_KEY": KEY},
        # A background job of a shell ignores SIGINT, and hands that on to what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def hang_after(count: int) -> Callable[[Endpoint, Asked], Reply | None]:
    """From the request after so many the server goes silent until its gate is opened."""

    def mood(endpoint: Endpoint, asked: Asked) -> Reply | None:
        return Reply(rewritten(asked), delay=600) if len(endpoint.asked) > count else None

    return mood


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_build_goes_on_with_what_is_missing_and_loses_nothing(
    call: Call, endpoint: Endpoint, folder: Path, number: signal.Signals
) -> None:
    endpoint.mood = hang_after(5)
    process = start(endpoint, folder)
    journal = folder / "out" / "isomers.journal.jsonl"
    # Five are answered and written, two more are under way.
    wait_until(lambda: len(endpoint.asked) == 7, process)
    wait_until(lambda: journal.read_bytes().count(b"\n") == 6, process)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in said and "interrupted" in said
    endpoint.gate.set()
    assert not (folder / "out" / "isomers.jsonl").exists()
    done = {(row["id"], row["domain"]) for row in lines(folder, ".journal")[1:]}
    assert len(done) == 5
    with journal.open("a") as file:  # as if the kill had cut a line
        file.write('{"id": "p5", "domain": "la')
    before = len(endpoint.asked)
    endpoint.mood = lambda endpoint, asked: None
    status, out, err = call()
    assert status == 0, err
    again = [(f"p{n}", domain) for n, domain in (asked.pair for asked in endpoint.asked[before:])]
    assert len(again) == 2 * PROBLEMS - 5 and done.isdisjoint(again)
    assert [(row["isomer_id"], row["domain"]) for row in lines(folder)] == [
        (f"p{n}", domain) for n in range(PROBLEMS) for domain in DOMAINS
    ]
    assert KEY not in said + out + err and secrets_in(folder) == []


def test_a_build_begun_with_other_settings_is_refused_or_begun_anew(
    call: Call, endpoint: Endpoint, folder: Path
) -> None:
    assert call()[0] == 0
    asked = len(endpoint.asked)
    status, _, err = call("--temperature", "0.5")
    assert status == 2 and "begun with other settings (sampling {}, now" in err
    assert len(endpoint.asked) == asked
    assert call("--temperature", "0.5", "--overwrite")[0] == 0
    assert len(endpoint.asked) == 2 * asked


def test_min_domains_may_change_without_asking_again(
    call: Call, endpoint: Endpoint, folder: Path
) -> None:
    endpoint.mood = lambda endpoint, asked: Reply("no") if asked.pair == (0, "law") else None
    status, out, _ = call()
    assert status == 0 and f"{PROBLEMS - 1} sets of {PROBLEMS} problems" in out
    assert "written to out/isomers.jsonl" in out and "out/isomers.rejects.jsonl" in out
    asked = len(endpoint.asked)
    assert len(lines(folder)) == 2 * PROBLEMS - 2
    assert call("--min_domains", "1", "--concurrency", "1")[0] == 0
    assert len(lines(folder)) == 2 * PROBLEMS - 1 and len(endpoint.asked) == asked


def test_a_local_model_is_a_teacher_too(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny_model(tmp_path_factory.mktemp("teacher"), max_position_embeddings=8192)
    told = ["--teacher", f"local:{model}", "--max_tokens", "4", "--device", "cpu"]
    common = ["--problems", "problems.jsonl", "--output", "out/isomers.jsonl"]
    status = main(["isomers", "build", *common, *told, "--domains", "law", "--attempts", "1"])
    # It has learned nothing, so nothing is kept; but it was asked, and what it said is there.
    assert status == 2
    said = "found none; the reasons are in out/isomers.rejects.jsonl"
    assert said in capsys.readouterr().err and not (folder / "out" / "isomers.jsonl").exists()
    rejects = lines(folder, ".rejects")
    assert len(rejects) == PROBLEMS and all(
        "one complete JSON object" in row["reason"] for row in rejects
    )


def blocked(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "isomers.jsonl").write_text("{}\n")


NOTHING: Callable[[Path], None] = lambda folder: None  # noqa: E731
FAULTS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no such file": (NOTHING, ["--problems", "gone.jsonl"], "gone.jsonl: expected a .jsonl file"),
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
