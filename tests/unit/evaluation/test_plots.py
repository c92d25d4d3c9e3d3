"""Curves: drawn where there is something to draw, and seen to follow it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from poise.evaluation import plots
from poise.evaluation.runs import Run, read_run, read_runs

from .run_folders import write_run

PREFIX = "data:image/svg+xml;base64,"


def svg(picture: str | None) -> str:
    assert picture is not None and picture.startswith(PREFIX)
    text = base64.b64decode(picture.removeprefix(PREFIX)).decode()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def panel(title: str) -> plots.Panel:
    return next(p for p in plots.PANELS if p.title == title)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(write_run(tmp_path / "r", steps=20))


@pytest.mark.parametrize("title", [p.title for p in plots.PANELS])
def test_every_panel_is_drawn_from_the_keys_that_the_trainer_logs(run: Run, title: str) -> None:
    assert "http-equiv" not in svg(plots.draw(panel(title), [run]))


def test_accuracy_is_drawn_from_the_evaluations(run: Run, tmp_path: Path) -> None:
    svg(plots.draw_accuracy([run]))
    none = read_run(write_run(tmp_path / "none", before=None, after=None))
    assert plots.draw_accuracy([none]) is None
    assert plots.draw_accuracy([none, run]) is not None


def test_what_was_not_logged_is_not_drawn(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + "\n")
    bare = read_run(tmp_path / "bare")
    assert plots.draw(panel("Entropy"), [bare]) is None
    svg(plots.draw(panel("Distillation loss"), [bare]))
    svg(plots.draw(panel("Entropy"), [bare, run]))


def test_several_runs_share_the_axes_in_colours_of_their_own(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / name) for name in ("a", "b", "c")])
    text = svg(plots.draw(panel("Reward"), runs)).lower()
    assert [colour.lower() in text for colour in plots.COLOURS] == [True] * 3 + [False] * 4


def test_raw_points_stay_visible_under_the_running_mean(tmp_path: Path) -> None:
    for steps in (20, 400):
        run = read_run(write_run(tmp_path / f"r{steps}", steps=steps))
        assert "opacity: 0.35" in svg(plots.draw(panel("Completion length"), [run]))


def test_the_running_mean_keeps_level_and_slope_and_tames_noise() -> None:
    np.testing.assert_allclose(plots.smooth([3.0] * 50), 3.0)
    line = np.arange(96.0)
    smoothed = plots.smooth(line.tolist())
    assert smoothed is not None
    np.testing.assert_allclose(smoothed[4:-4], line[4:-4])
    noisy = plots.smooth(np.random.default_rng(0).normal(size=960).tolist())
    assert noisy is not None and noisy.std() < 0.25
    assert plots.smooth([1.0, 2.0]) is None


def test_extreme_values_are_drawn_without_complaint(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r")
    lines = [{"step": 10 * i, "grad_norm": 10.0 ** (i - 8), "loss": -1e30} for i in range(1, 16)]
    lines.append({"step": 200, "grad_norm": 0.0, "loss": 1e30})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for title in ("Gradient norm", "Distillation loss"):
        svg(plots.draw(panel(title), [read_run(folder)]))


def test_nothing_global_is_touched(run: Run) -> None:
    before = dict(matplotlib.rcParams)
    plots.draw(panel("Reward"), [run])
    plots.draw_accuracy([run])
    assert dict(matplotlib.rcParams) == before
    import sys

    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
