"""`poise report` from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from poise.cli.main import main
from tests.unit.evaluate.constructed import write_run


def test_one_run_keeps_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "r", steps=0)
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Report written to {folder / 'report.html'}\n"
    assert "<h1>r</h1>" in (folder / "report.html").read_text()


def test_several_runs_share_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [str(write_run(tmp_path / name, steps=0)) for name in ("a", "b")]
    assert main(["report", *runs]) == 0
    assert "<h1>a · b</h1>" in (tmp_path / "report.html").read_text()
    assert main(["report", "--output", "pages/both.html", *runs]) == 0
    assert (tmp_path / "pages" / "both.html").is_file()


def test_runs_may_stand_in_a_configuration_file(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", steps=0)
    for runs in (f"[{folder}]", str(folder)):
        (folder / "report.html").unlink(missing_ok=True)
        (tmp_path / "x.yaml").write_text(f"runs: {runs}\n")
        assert main(["report", "--config", str(tmp_path / "x.yaml")]) == 0
        assert (folder / "report.html").is_file()


def test_a_folder_that_is_no_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"poise report: {tmp_path}: expected a run folder")
    assert error.count("\n") == 1
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "expected a run folder" in capsys.readouterr().err
