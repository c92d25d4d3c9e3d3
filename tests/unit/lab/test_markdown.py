"""The text of a table, to the letter, and what the figure shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab import figure, markdown, tables
from lab.experiment import Experiment

from .toys import toy

HARDWARE = {"processor": "A4", "cores": 2, "threads": 1, "gpu": None}
PAGE = """\
# toy

Study toy: 11 of 12 runs, 3 seeds. Brackets are 95 % intervals over seeds (Student's; where each \
seed has 0 or 100 %, Wilson's).

Differences are to plain, paired by seed; p is of the paired t-test after Holm's correction for \
all 3 comparisons here. Bold: p < 0.05.

Missing runs (1): method plain, x 2, seed 3.

## score, % (higher is better)

| x | method | seeds | mean | difference | p |
| --- | --- | ---: | ---: | ---: | ---: |
| 1 | plain | 3 | 20.0 [0.0, 44.8] |  |  |
| 1 | shifted | 3 | 70.2 [44.7, 95.6] | **+50.2 [+49.4, +50.9]** | < 0.001 |
| 2 | plain | 2 | 15.0 [0.0, 78.5] |  |  |
| 2 | shifted | 3 | 70.2 [44.7, 95.6] | +50.0 [+50.0, +50.0] (2 seeds) | 1.000 |

## cost (lower is better)

| x | method | seeds | mean |
| --- | --- | ---: | ---: |
| 1 | plain | 3 | 0.00200 [-0.000484, 0.00448] |
| 1 | shifted | 3 | 0.00200 [-0.000484, 0.00448] |
| 2 | plain | 2 | 0.00150 [-0.00485, 0.00785] |
| 2 | shifted | 3 | 0.00200 [-0.000484, 0.00448] |

## steep (max of cost over x)

| method | seeds | mean | difference | p |
| --- | ---: | ---: | ---: | ---: |
| plain | 2 | 0.00150 [-0.00485, 0.00785] |  |  |
| shifted | 3 | 0.00200 [-0.000484, 0.00448] | +0.00 [+0.00, +0.00] (2 seeds) | 1.000 |

Wall time of all runs: 1.10 h.

Machine (11 runs): processor A4, cores 2, threads 1.

Versions (11 runs): poise 1.
"""


def experiment_of(folder: Path, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "baseline": "plain",
        "grid": {"x": [1, 2]},
        "table": {
            "score": {"better": "higher", "percent": True},
            "cost": {"better": "lower", "compare": False},
            "steep": {"of": "cost", "over": "x", "by": "max"},
        },
        "figure": {"x": "x", "y": ["score", "cost"], "log": "x"},
    }
    return toy(folder / "toy", **settings | changes)


def records_of(experiment: Experiment) -> dict[str, Any]:
    """The baseline's last run is missing; `shifted` gains a half, a little more at one seed."""
    records = {}
    for run in [*experiment.runs()[:-2], experiment.runs()[-1]]:
        seed, is_shifted = run.place["seed"], run.place["method"] == "shifted"
        odd = 0.005 * (seed == 3)
        records[run.key] = {
            "figures": {"score": 0.1 * seed + is_shifted * (0.5 + odd), "cost": 0.001 * seed},
            "seconds": 360.0,
            "hardware": HARDWARE,
            "versions": {"poise": 1},
        }
    return records


def test_the_page_says_this(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path)
    records = records_of(experiment)
    assert markdown.page(experiment, records, tables.build(experiment, records)) == PAGE


def test_a_method_is_compared_with_its_partner_by_name(tmp_path: Path) -> None:
    experiment = experiment_of(
        tmp_path,
        grid={},
        methods={"plain": {}, "other": {"a": 1}, "shifted": {"a": 2}},
        partners={"shifted": "other"},
        table={"score": {}},
        figure={"y": "score"},
    )
    records = records_of(experiment)
    sections = tables.build(experiment, records)
    other, shifted = sections[0].rows[1:]
    assert other.comparison is not None and shifted.comparison is not None
    assert other.comparison.mean == pytest.approx(0.0)
    assert shifted.comparison.mean == pytest.approx(
        np.mean([shifted.values[seed] - other.values[seed] for seed in other.values])
    )
    text = markdown.page(experiment, records, sections)
    assert "Differences are to plain, where no other is named, paired" in text
    assert "(2 seeds) to other |" in text and "to plain |" not in text
    assert experiment.plot is not None
    (axes,) = figure.draw(experiment, experiment.plot, sections).axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["other", "shifted\nto other"]


def test_a_method_that_lacks_a_figure_leaves_table_and_drawing_whole(tmp_path: Path) -> None:
    methods = {"D(p|q)": {}, "shifted": {"shift": 1}}
    experiment = experiment_of(tmp_path, methods=methods, baseline="D(p|q)")
    records = records_of(experiment)
    for run in experiment.runs():
        if run.place["method"] == "shifted" and run.key in records:
            del records[run.key]["figures"]["cost"]
    sections = tables.build(experiment, records)
    text = markdown.page(experiment, records, sections)
    assert "| 1 | shifted | 0 | missing |" in text and "| 1 | D(p\\|q) | 3 | 0.00200" in text
    written = []
    for _ in range(2):  # the same results give the same file
        (path,) = figure.save(experiment, sections, tmp_path)
        written.append(path.read_bytes())
    assert path == tmp_path / "figure.png" and written[0] == written[1]
    nothing = experiment_of(tmp_path / "no figure", figure=None)
    assert figure.save(nothing, sections, tmp_path) == []


def test_the_figure_shows_means_and_intervals_by_panel(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path)
    sections = tables.build(experiment, records_of(experiment))
    assert experiment.plot is not None
    drawn = figure.draw(experiment, experiment.plot, sections)
    score, cost, *rest = (axes for axes in drawn.axes if axes.get_visible())
    assert rest == [] and (score.get_ylabel(), cost.get_ylabel()) == ("score, %", "cost")
    assert score.get_xscale() == "log" and score.get_yscale() == "linear"
    plain, shifted = score.containers
    assert (plain.get_label(), shifted.get_label()) == ("plain", "shifted")
    line, _, (bars,) = plain.lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 20], [2, 15]])
    half = 100 * 0.1 * 4.302652729911275 / np.sqrt(3)
    assert half > 20  # a rate ends at 0
    np.testing.assert_allclose(bars.get_segments()[0], [[1, 0], [1, 20 + half]], atol=1e-9)


def test_other_axes_make_panels_and_words_are_placed_in_their_order(tmp_path: Path) -> None:
    experiment = experiment_of(
        tmp_path,
        grid={"x": [1, 2], "size": ["small", "large"]},
        table={"score": {}},
        figure={"x": "size", "y": "score", "log": "y"},
    )
    records = records_of(experiment)
    assert experiment.plot is not None
    drawn = figure.draw(experiment, experiment.plot, tables.build(experiment, records))
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["x 1", "x 2"]
    labels = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    assert labels == ["small", "large"] and drawn.axes[0].get_yscale() == "log"


def test_what_has_no_results_yet_leaves_its_panel_empty(tmp_path: Path) -> None:
    experiment = experiment_of(
        tmp_path,
        grid={"x": [1, 2], "size": ["small", "large"]},
        table={"score": {"compare": False}},
        figure={"y": "score", "log": ["y"], "x": "x", "methods": "shifted"},
    )
    runs = [run for run in experiment.runs() if run.place["size"] == "small"]
    records = {run.key: {"figures": {"score": 1.0}} for run in runs}
    figure.save(experiment, tables.build(experiment, records), tmp_path)
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("compare", [True, False])
def test_without_an_axis_the_methods_stand_side_by_side(tmp_path: Path, compare: bool) -> None:
    table = {"score": {"compare": compare}}
    experiment = experiment_of(tmp_path, grid={}, table=table, figure={"y": "score"})
    assert experiment.plot is not None
    sections = tables.build(experiment, records_of(experiment))
    (axes,) = figure.draw(experiment, experiment.plot, sections).axes
    found = [label.get_text() for label in axes.get_yticklabels()]
    middles = [container.lines[0].get_xdata()[0] for container in axes.containers]
    plain, shifted = sections[0].rows
    if compare:
        assert found == ["shifted"] and axes.get_xlabel() == "score,\ndifference to plain"
        assert shifted.comparison is not None
        np.testing.assert_allclose(middles, [shifted.comparison.mean])
    else:
        assert found == ["plain", "shifted"] and axes.get_xlabel() == "score"
        np.testing.assert_allclose(middles, [plain.mean, shifted.mean])


def test_a_column_may_name_the_method_to_compare_with(tmp_path: Path) -> None:
    experiment = experiment_of(
        tmp_path,
        grid={},
        methods={"plain": {}, "other": {"a": 1}, "shifted": {"a": 2}},
        table={"score": {}, "to other": {"of": "score", "compare": "other"}},
        figure={"y": "score"},
    )
    sections = tables.build(experiment, records_of(experiment))
    usual, named = (section.rows for section in sections)
    assert [row.partner for row in usual] == [None, "plain", "plain"]
    assert [row.partner for row in named] == ["other", None, "other"]
    assert [row.values for row in named] == [row.values for row in usual]
    found, to_other = named[2].comparison, named[0].comparison
    assert found is not None and to_other is not None
    shifted, other = named[2].values, named[1].values
    assert found.mean == pytest.approx(np.mean([shifted[s] - other[s] for s in other]))
    text = markdown.page(experiment, records_of(experiment), sections)
    assert "## to other (score)" in text and "to plain |" not in text
    assert text.count(" to other |") == 2
