"""Curves: drawn where there is something to draw, and seen to follow it."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from poise.evaluate import plots
from poise.evaluate.plots import PANELS, Panel, domain_losses, panels_of
from poise.evaluate.runs import Run, read_run, read_runs

from .constructed import write_iga_run, write_run

PREFIX = "data:image/svg+xml;base64,"


def svg(picture: str | None) -> str:
    assert picture is not None and picture.startswith(PREFIX)
    text = base64.b64decode(picture.removeprefix(PREFIX)).decode()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def panel(title: str) -> Panel:
    return next(p for p in PANELS if p.title == title)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(write_run(tmp_path / "r", steps=20))


def test_every_panel_is_drawn_from_the_keys_that_the_trainer_logs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dict(matplotlib.rcParams)
    svg(plots.draw(PANELS[0], [run]))
    monkeypatch.setattr(plots, "data_uri", lambda figure: "drawn")
    assert all(plots.draw(panel, [run]) for panel in PANELS if panel.method != "iga")
    assert dict(matplotlib.rcParams) == before  # nothing global is touched


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
    svg(plots.draw(panel("Loss"), [bare]))
    svg(plots.draw(panel("Entropy"), [bare, run]))


def test_the_running_mean_keeps_level_and_slope_and_tames_noise() -> None:
    np.testing.assert_allclose(plots.smooth([3.0] * 50), 3.0)
    line = np.arange(96.0)
    smoothed = plots.smooth(line.tolist())
    assert smoothed is not None
    np.testing.assert_allclose(smoothed[4:-4], line[4:-4])
    noisy = plots.smooth(np.random.default_rng(0).normal(size=960).tolist())
    assert noisy is not None and noisy.std() < 0.25
    assert plots.smooth([1.0, 2.0]) is None


def test_the_panels_are_those_of_the_methods_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgpo, iga = read_runs([write_run(tmp_path / "pgpo"), write_iga_run(tmp_path / "iga")])
    methods = [{p.method for p in panels_of(runs)} for runs in ([pgpo], [iga], [iga, pgpo])]
    assert methods == [{"", "pgpo"}, {"", "iga"}, {"", "iga", "pgpo"}]
    monkeypatch.setattr(plots, "data_uri", lambda figure: "drawn")
    assert all(plots.draw(panel, [iga]) for panel in panels_of([iga]))
    plain = read_run(write_iga_run(tmp_path / "plain", steps=0))
    assert {p.method for p in panels_of([plain])} == {""}
    # A trainer of the same kind without the method has its panels.
    line = {"step": 1, "self_distillation/reward_mean": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert {p.method for p in panels_of([read_run(tmp_path)])} == {"", "pgpo"}


def test_losses_by_domain_are_told_apart_by_colour(tmp_path: Path) -> None:
    run = read_run(write_iga_run(tmp_path / "r"))
    ((owner, losses),) = domain_losses([run])
    assert owner is run and losses.title == "Loss by domain"
    assert list(losses.lines) == ["law", "mathematics", "medicine", "science"]
    text = svg(plots.draw(losses, [run])).lower()
    assert [colour.lower() in text for colour in plots.COLOURS] == [True] * 4 + [False] * 3


def test_two_domains_have_two_colours(tmp_path: Path) -> None:
    run = read_run(write_iga_run(tmp_path / "r", domains=("law", "science")))
    text = svg(plots.draw(domain_losses([run])[0][1], [run])).lower()
    assert [colour.lower() in text for colour in plots.COLOURS] == [True] * 2 + [False] * 5


def test_each_run_and_each_dash_is_named_once(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "data_uri", drawn.append)
    names = [f"_run{i}" for i in range(15)]  # matplotlib's own labels begin so too
    runs = [replace(run, name=name) for name in names]
    for picture in (PANELS[0], panel("Entropy")):
        plots.draw(picture, runs)
    plots.draw_accuracy(runs)
    found = [[[x.get_text() for x in y.get_texts()] for y in z.legends] for z in drawn]
    assert found == [[names], [names, ["student", "teacher"]], [names]]
    for figure in drawn:
        figure.draw_without_rendering()
        assert figure.axes[0].get_window_extent().height / figure.dpi > 1.4


def test_a_domain_has_one_colour_in_all_runs(tmp_path: Path) -> None:
    few = write_iga_run(tmp_path / "few", domains=("science",))
    runs = read_runs([few, write_iga_run(tmp_path / "all"), write_run(tmp_path / "none")])
    drawn = domain_losses(runs)
    assert [panel.title for _, panel in drawn] == ["Loss by domain: few", "Loss by domain: all"]
    text = svg(plots.draw(drawn[0][1], [runs[0]])).lower()
    assert plots.COLOURS[3].lower() in text and plots.COLOURS[0].lower() not in text


def test_layers_are_mapped_by_kind_and_block_with_their_mean_over_steps(tmp_path: Path) -> None:
    run = read_run(write_iga_run(tmp_path / "r"))
    found = plots.map_of(run, "mask_mean")
    assert found is not None
    kinds, values = found
    assert kinds == ["q_proj", "v_proj"]
    expected = [[0.5, 0.6, np.nan], [np.nan, np.nan, 0.7]]
    np.testing.assert_allclose(values, expected)
    svg(plots.draw_layers(run))
    assert plots.map_of(run, "unknown") is None
    assert plots.draw_layers(read_run(write_run(tmp_path / "none"))) is None


def test_a_layer_without_a_number_is_in_the_first_block(run: Run) -> None:
    names = ("base_model.model.lm_head", "base_model.model.transformer.h.11.attn.c_attn")
    layers = ({name: {"mask_mean": 0.5} for name in names},)
    found = plots.map_of(replace(run, layers=layers), "mask_mean")
    assert found is not None and found[0] == ["lm_head", "c_attn"]
    assert np.argwhere(np.isfinite(found[1])).tolist() == [[0, 0], [1, 11]]
