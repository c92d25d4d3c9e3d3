"""`experiment.yaml`: what it means, and that mistakes are told before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import specification
from lab.experiment import Column, Plot
from lab.specification import ExperimentError

from .toys import toy, write


def test_every_key_arrives(tmp_path: Path) -> None:
    found = toy(
        tmp_path / "all",
        fixed={"power": 2},
        grid={"x": [1, 2.5]},
        seeds=[5, 7],
        baseline="plain",
        table={
            "score": {"better": "lower", "percent": True, "compare": False},
            "growth": {"of": "curve", "over": "x", "by": "slope"},
        },
        figure={"x": "x", "y": "score", "log": ["x"]},
    )
    assert (found.name, found.study, found.seeds) == ("all", "toy", (5, 7))
    assert found.methods == {"plain": {}, "shifted": {"shift": 1}}
    assert (found.fixed, found.grid, found.baseline) == ({"power": 2}, {"x": (1, 2.5)}, "plain")
    assert found.table == {
        "score": Column("lower", percent=True, compare=False),
        "growth": Column(of="curve", over="x", by="slope"),
    }
    assert found.plot == Plot(y=("score",), x="x", log=("x",))


def test_the_first_seed_of_everything_comes_first(tmp_path: Path) -> None:
    runs = toy(tmp_path, seeds=2, grid={"x": [1, 2]}).runs()
    assert toy(tmp_path, seeds=4).seeds == (1, 2, 3, 4)
    assert [(r.place["seed"], r.place["x"], r.place["method"]) for r in runs] == [
        (seed, x, method) for seed in (1, 2) for x in (1, 2) for method in ("plain", "shifted")
    ]


def test_a_methods_own_settings_go_before_the_fixed_ones(tmp_path: Path) -> None:
    first, second = toy(tmp_path, fixed={"shift": 5, "power": 2}, seeds=1).runs()
    assert first.config == {"shift": 5, "power": 2, "method": "plain", "seed": 1}
    assert second.config == {"shift": 1, "power": 2, "method": "shifted", "seed": 1}


def test_a_key_depends_on_settings_and_study_and_on_nothing_else(tmp_path: Path) -> None:
    grid = {"x": [1, 2]}
    runs = toy(tmp_path / "a", grid=grid, fixed={"power": 1, "log": "/"}).runs()
    assert len({run.key for run in runs}) == len(runs) == 12
    again = toy(
        tmp_path / "b",
        grid={"x": [2, 1]},
        fixed={"log": "/", "power": 1},
        seeds=[3, 1],
        table={"other": {}},
    )
    assert {run.key for run in again.runs()} < {run.key for run in runs}
    changed = toy(tmp_path / "c", grid=grid, fixed={"power": 2, "log": "/"}).runs()
    assert {run.key for run in changed}.isdisjoint(run.key for run in runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": 3}, "the file: unknown name 'sedes'; did you mean 'seeds'?"),
        ({"seeds": None}, "expected 'seeds', found none"),
        ({"seeds": 0}, "seeds: expected whole numbers, or one n for 1 to n; found 0"),
        ({"study": "tory"}, "study: unknown study 'tory'; did you mean 'toy'?"),
        ({"methods": ["a"]}, "methods: expected names with values, found ['a']"),
        ({"baseline": "plan"}, "baseline: unknown name 'plan'; did you mean 'plain'?"),
        ({"seeds": [1, 1]}, "seeds: expected each one once, found [1, 1]"),
        ({"grid": {"x": 3}}, "grid: x: expected a list of values, found 3"),
        ({"grid": {"x": [[1]]}}, "grid: x: expected numbers, texts or switches, found [1]"),
        ({"grid": {"x": [1, 1]}}, "grid: x: expected each value once, found [1, 1]"),
        ({"grid": {"x": ["1e-3"]}}, "grid: x: expected a number, found the text '1e-3'; YAML"),
        ({"fixed": {"a": {"b": ["2e5"]}}}, "fixed: a: expected a number, found the text '2e5'"),
        ({"grid": {"seed": [1]}}, "grid: 'method' and 'seed' have their own keys"),
        ({"grid": {"x": [1]}, "fixed": {"x": 2}}, "fixed: 'x' has its own place"),
        ({"grid": {"x": [1]}, "methods": {"a": {"x": 2}}}, "methods: a: 'x' has its own place"),
        ({"fixed": {"a": float("inf")}}, "fixed: a: expected numbers, texts, lists or null"),
        ({"table": {"score": {"beter": 1}}}, "table: score: unknown name 'beter'; did you mean"),
        ({"table": {"score": {"better": "up"}}}, "better: expected one of 'higher', 'lower'"),
        ({"table": {"score": {"percent": "no"}}}, "percent: expected true or false, found 'no'"),
        ({"table": {"a": {"by": "max"}}}, "table: a: expected 'over' and 'by' together or none"),
        ({"table": {"score": {"compare": "plan"}}}, "compare: unknown name 'plan'; did you mean"),
        (
            {"table": {"a": {"of": "score", "over": "x", "by": "max"}}},
            "table: a: over: unknown name 'x'",
        ),
        (
            {"grid": {"x": [0, 1]}, "table": {"a": {"of": "b", "over": "x", "by": "slope"}}},
            "table: a: by slope: expected an axis of numbers above 0, found [0, 1]",
        ),
        (
            {"grid": {"x": ["a", 1]}, "table": {"a": {"of": "b", "over": "x", "by": "trend"}}},
            "table: a: by trend: expected an axis of numbers, found ['a', 1]",
        ),
        (
            {"grid": {"x": [1]}, "table": {"a": {"of": "b", "over": "x", "by": "range"}}},
            "table: a: by range: expected a baseline, found none",
        ),
        (
            {
                "grid": {"x": [3, 1]},
                "baseline": "plain",
                "table": {"a": {"of": "b", "over": "x", "by": "range"}},
            },
            "table: a: by range: expected an axis that rises, found [3, 1]",
        ),
        ({"partners": {"plain": "c"}}, "partners: unknown name 'c'"),
        ({"figure": {"x": "x"}}, "figure: expected 'y', found none"),
        ({"figure": {"y": "scor"}}, "figure: y: unknown name 'scor'; did you mean 'score'?"),
        ({"figure": {"y": "score", "log": "z"}}, "figure: log: unknown name 'z'"),
        ({"figure": {"y": "score", "log": "x"}}, "figure: log: expected an axis of numbers"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "wrong", **changes)
    with pytest.raises(ExperimentError) as caught:
        specification.load(folder)
    assert str(caught.value).startswith(f"{folder / 'experiment.yaml'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "experiment.yaml").write_text(text)
    with pytest.raises(ExperimentError, match="expected"):
        specification.load(tmp_path)


def test_an_experiment_is_found_by_name_and_by_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "experiments" / "known")
    write(tmp_path / "elsewhere")
    assert specification.find("known") == Path("experiments/known")
    assert specification.find(str(tmp_path / "elsewhere")) == tmp_path / "elsewhere"
    with pytest.raises(ExperimentError, match="found none; did you mean 'known'"):
        specification.find("knwon")
    with pytest.raises(ExperimentError, match="found none; see `python -m lab list`"):
        specification.find("zzz")
