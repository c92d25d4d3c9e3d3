"""What an evaluation amounts to."""

from __future__ import annotations

import json

import pytest

from poise.evaluate.statistics import run_interval
from poise.evaluate.measures import compare, described, over_runs, summarise

from .constructed import question


def test_a_summary_holds_every_measure() -> None:
    questions = [
        question("a", "AAAB"),
        question("b", ["B", "B", None, "A"], finished=(True, True, False, True)),
    ]
    found = summarise(questions)
    assert (found.questions, found.k) == (2, 4)
    assert found.average.mean == 0.5
    assert found.passed.mean == 1.0
    assert found.majority.mean == 0.5
    assert found.format.mean == 0.875
    assert found.finished == 0.875
    assert found.length == 6.5
    assert found.passes == pytest.approx({1: 0.5, 2: 0.75, 4: 1.0})


def test_pass_at_k_ends_at_k_when_k_is_no_power_of_two() -> None:
    assert list(summarise([question("a", "AAAAAB")]).passes) == [1, 2, 4, 6]


def test_a_summary_is_json() -> None:
    found = json.loads(json.dumps(summarise([question("a", "AB"), question("b", "AA")]).as_json()))
    assert found["average"]["mean"] == 0.75
    assert found["passes"] == {"1": 0.75, "2": 1.0}


def test_a_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more questions"):
        summarise([])


def test_the_difference_is_taken_on_the_questions_that_both_have() -> None:
    before = [question("a", "BB"), question("b", "AB"), question("gone", "AA")]
    after = [question("b", "AA"), question("a", "AB"), question("new", "BB")]
    found = compare(before, after)
    assert found.interval.mean == 0.5
    assert found.questions == 2


def test_runs_with_different_seeds_are_taken_together() -> None:
    before = [question("a", "BBBB"), question("b", "BBBB")]
    afters = [[question("a", x), question("b", "BBBB")] for x in ("AAAA", "AABB", "BBBB", "AAAB")]
    differences = [compare(before, after) for after in afters]
    configs = [{"config.seed": seed} for seed in range(4)]
    (found,) = over_runs("wxyz", configs, differences)
    assert found.runs == ("w", "x", "y", "z")
    assert found.interval == run_interval([0.5, 0.25, 0.0, 0.375])
    (without,) = over_runs("wxyz", configs, [None, *differences[1:]])
    assert without.runs == ("x", "y", "z")
    assert over_runs("wxyz", [{}, {}, *configs[2:]], differences) == []


def test_settings_are_said_in_one_line() -> None:
    said = described({"k": 4, "top_p": 0.95, "stop": [], "x": None, "y": {"think": False}})
    assert said == "k 4, top_p 0.95, x none, y think: False"
    assert described({"stop": ["\n", "Q:"]}) == r"stop '\n', Q:"
