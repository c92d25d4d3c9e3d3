"""Runs that repeat one setting with different seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from poise.evaluate.isomers import MEAN, outcomes, outcomes_over_seeds, over_seeds
from poise.evaluate.statistics import run_interval

from .test_isomers import sets


def run(seed: int, **others: object) -> dict[str, object]:
    return {"config.seed": seed, "config.output_dir": f"runs/{seed}", "config.rate": 1.0} | others


def found(runs: Sequence[dict[str, object]], values: Sequence[Any] = (1, 2, 3, 4, 5, 6, 7)) -> Any:
    return over_seeds(list(zip("abcdefg", runs, strict=False)), values[: len(runs)])


def test_runs_that_differ_in_seeds_and_names_alone_repeat_one_setting() -> None:
    runs = [run(0), run(7, **{"config.rate": 2.0}), run(1), run(2)]
    assert found(runs) == [(("a", "c", "d"), [1, 3, 4])]
    assert found(runs[:3]) == found(runs, [None, 6, 7, 8]) == found([{}, *runs[1:]]) == []
    other = [run(0, **{"config.rate": 3.0, "script.question_seed": i}) for i in range(3)]
    assert [names for names, _ in found([*runs, *other])] == [("a", "c", "d"), ("e", "f", "g")]
    # A run that was made twice counts once.
    again = run(0, **{"config.output_dir": "elsewhere"})
    assert found([run(0), again, run(1)]) == []
    assert found([run(0), again, run(1), run(2)]) == [(("a", "c", "d"), [1, 3, 4])]


def test_measures_over_seeds_are_those_that_all_runs_have() -> None:
    runs = [(name, run(seed)) for seed, name in enumerate("abc")]
    words = ("AAA", "AAB", "ABB")
    ((names, tests),) = outcomes_over_seeds(runs, [outcomes(sets("deeper", x)) for x in words])
    assert names == ("a", "b", "c")
    assert tests["deeper"]["accuracy"] == run_interval([1, 2 / 3, 1 / 3])
    assert tests[MEAN]["disagreement"] == run_interval([0, 2 / 3, 2 / 3])
    assert "consistency" not in tests["deeper"]
    asked = ("deeper", "reversed", "deeper")
    ((_, common),) = outcomes_over_seeds(runs, [outcomes(sets(test, "AAA")) for test in asked])
    assert list(common) == [MEAN]
