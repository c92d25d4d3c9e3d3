"""`poise eval` on logical isomers: tests side by side, runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from poise.evaluate.isomers import MEAN, logical_consistency, outcomes
from poise.evaluate.records import read_representations
from poise.evaluate.runs import read_run
from tests.tiny import save_adapter

from .conftest import Call, ask

Words = tuple[str | Path, ...]
TESTS = ("in_distribution", "reversed", "deeper")
ORDERS = {"law": "A B", "science": "B A"}


@pytest.fixture
def few() -> list[str]:
    """More and longer samples than elsewhere."""
    return ["--k", "8", "--max_new_tokens", "4"]


def isomer_rows(sets: int = 3) -> list[dict[str, Any]]:
    """Each set in two domains, whose words mean opposite things."""
    return [
        {
            "isomer_id": f"s{i}",
            "domain": domain,
            "test": test,
            "depth": 1,
            "prompt": "Question: " + "C D " * (i + 1) + letters + " D" * letters.index("A"),
            "completion": f" {letters}\nAnswer: {letters[0]}",
            "answer": "e0",
            "options": ["A", "B"],
            "meanings": [f"e{letters.index(letter) // 2}" for letter in "AB"],
        }
        for test in TESTS
        for i in range(sets)
        for domain, letters in ORDERS.items()
    ]


@pytest.fixture
def isomers_path(tmp_path: Path) -> Path:
    path = tmp_path / "isomers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in isomer_rows()))
    return path


@pytest.fixture
def words(letters_path: str, isomers_path: Path) -> Words:
    """A model is asked the isomers."""
    return "--model", letters_path, "--dataset_name", isomers_path


def test_a_run_is_measured_test_by_test(call: Call, isomers_path: Path, run_path: Path) -> None:
    found = ask(call, "--compare", run_path, "--dataset_name", isomers_path)
    before, after = found["evaluations"]
    assert list(before["tests"]) == [*TESTS, MEAN] == list(found["differences"][0]["tests"])
    run = read_run(run_path)
    assert run.after is not None
    vectors = read_representations(run_path / "evaluation" / "after.representations.safetensors")
    expected = outcomes(run.after.questions, vectors)
    for test, outcome in expected.items():
        assert after["tests"][test]["accuracy"]["mean"] == outcome.accuracy.mean
        assert outcome.consistency is not None and outcome.disagreement is not None
        assert after["tests"][test]["consistency"]["mean"] == outcome.consistency.mean
        assert after["tests"][test]["disagreement"]["mean"] == outcome.disagreement.mean
    assert after["consistency"]["score"]["mean"] == logical_consistency(vectors).score.mean
    assert before["consistency"] != after["consistency"]
    assert after["representations"]["layer"] == 1 and after["representations"]["center"] == "mean"
    records = run.after.questions
    assert [q.isomer_id for q in records if q.test == "deeper"].count("s0") == 2
    assert {q.test for q in records} == set(TESTS) and {q.answer for q in records} == {"e0"}
    assert {x for q in records for x in q.extracted} <= {"e0", "e1", None}


def test_two_runs_stand_beside_each_other_and_the_model_before(
    call: Call, letters_path: str, isomers_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = save_adapter(letters_path, tmp_path / "plain", seed=2)
    (other / "metrics.jsonl").touch()
    words = ("--compare", run_path, other, "--dataset_name", isomers_path)
    found = ask(call, *words)
    assert [(d["from"], d["to"]) for d in found["differences"]] == [
        ("before", "run"),
        ("before", "plain"),
    ]
    (between,) = found["between"]
    assert (between["from"], between["to"]) == ("run", "plain")
    means = [e["tests"][MEAN]["accuracy"]["mean"] for e in found["evaluations"]]
    assert between["tests"][MEAN]["interval"]["mean"] == pytest.approx(means[2] - means[1])
    first, second = (
        read_representations(folder / "evaluation" / "before.representations.safetensors")
        for folder in (run_path, other)
    )
    np.testing.assert_array_equal(first.vectors, second.vectors)
    status, out, _ = call(*words)
    assert status == 0
    for text in ("Accuracy by test", "Worst domain", "Answer disagreement", "Consistency Score"):
        assert text in out
    assert "plain - run" in out and "mean out of distribution" in out


def test_runs_with_three_seeds_are_taken_together(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    runs = [save_adapter(letters_path, tmp_path / f"s{seed}", seed) for seed in range(1, 4)]
    for seed, run in enumerate(runs):
        (run / "metrics.jsonl").touch()
        (run / "config.yaml").write_text(yaml.safe_dump({"config": {"seed": seed, "rate": 1.0}}))
    words = ("--dataset_name", isomers_path, "--compare", *runs)
    found = ask(call, *words)
    (group,), (change,) = found["over_seeds"], found["over_runs"]
    assert group["runs"] == change["runs"] == ["s1", "s2", "s3"]
    means = [e["tests"]["deeper"]["accuracy"]["mean"] for e in found["evaluations"][1:]]
    assert group["tests"]["deeper"]["accuracy"]["mean"] == pytest.approx(sum(means) / 3)
    changes = [difference["interval"]["mean"] for difference in found["differences"]]
    assert change["interval"]["mean"] == pytest.approx(sum(changes) / 3)
    assert change["interval"]["low"] < min(changes) < max(changes) < change["interval"]["high"]
    printed = call(*words)[1]
    assert "Means of 3 seeds" in printed
    assert "Mean of 3 runs that differ in their seeds" in printed
    two = ask(call, *words[:-1])
    assert two["over_runs"] == two["over_seeds"] == []


def test_answers_that_are_cut_are_told_once(call: Call, isomers_path: Path, run_path: Path) -> None:
    _, _, err = call("--compare", run_path, "--dataset_name", isomers_path, "--max_new_tokens", "2")
    (line,) = [line for line in err.splitlines() if "reference completions" in line]
    assert "poise eval: reference completions are longer than max_new_tokens (2)" in line
    assert "in_distribution 6 of 6, reversed 6 of 6, deeper 6 of 6" in line


def test_representations_are_not_made_again_unless_asked(
    call: Call, words: Words, tmp_path: Path
) -> None:
    first = ask(call, *words)
    file = tmp_path / "evaluations" / "base.representations.safetensors"
    stamp = file.stat().st_mtime_ns
    assert ask(call, *words) == first
    assert file.stat().st_mtime_ns == stamp
    status, out, err = call(*words, "--layer", "9")
    assert status == 2 and out == "" and "layer: expected 0 (embeddings) to 2" in err
    status, _, err = call(*words, "--layer", "0")
    assert status == 2 and "'layer': 0" in err and "--overwrite" in err
    again = ask(call, *words, "--layer", "0", "--overwrite")["evaluations"][0]
    assert again["representations"]["layer"] == 0
    assert again["tests"]["deeper"]["consistency"] != first["evaluations"][0]["tests"]["deeper"]


def test_representations_may_be_left_out(call: Call, words: Words, tmp_path: Path) -> None:
    words = (*words, "--consistency", "false")
    (evaluation,) = ask(call, *words)["evaluations"]
    assert evaluation["consistency"] is None and evaluation["representations"] is None
    assert evaluation["tests"]["deeper"]["consistency"] is None
    assert evaluation["disagreement"]["sets"] == 9
    assert [f.name for f in (tmp_path / "evaluations").iterdir()] == ["base.jsonl"]
    assert "Consistency Score" not in call(*words)[1]


def test_generated_isomers_are_asked_in_every_test(call: Call, letters_path: str) -> None:
    words = ("--model", letters_path, "--dataset_name", "isomers:ordering", "--count", "2")
    cued = ask(call, *words, "--cue_strength", "0.9", "--depths", "2")
    assert list(cued["evaluations"][0]["tests"]) == [
        "in_distribution",
        "no_cue",
        "reversed",
        "unseen_domains",
        "deeper",
        "unseen_phrasings",
        MEAN,
    ]
    assert cued["selection"]["tests"] is True
    assert "reversed" not in ask(call, *words, "--overwrite")["evaluations"][0]["tests"]


def test_some_tests_are_asked(call: Call, words: Words) -> None:
    found = ask(call, *words, "--tests", "deeper", "reversed")
    assert list(found["evaluations"][0]["tests"]) == ["reversed", "deeper", MEAN]
    assert found["selection"] == {"tests": ["deeper", "reversed"]}
    status, _, err = call(*words, "--tests", "depper")
    assert status == 2 and "tests: expected some of" in err and "'depper'" in err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_set_without_domains_is_refused_before_anything_is_asked(
    call: Call, words: Words, isomers_path: Path, tmp_path: Path, form: list[str]
) -> None:
    row = {"isomer_id": "s", "prompt": "A", "answer": "A"}
    lines = [json.dumps(row | {"id": name}) + "\n" for name in ("first", "second")]
    isomers_path.write_text("".join(lines))
    status, out, err = call(*words, *form)
    assert (status, out) == (2, "") and "expected each domain once in an isomer set" in err
    assert not (tmp_path / "evaluations").exists()
