"""`poise eval` on logical isomers: tests side by side, runs beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from poise.evaluate.isomers import MEAN, outcomes
from poise.evaluate.isomers import logical_consistency
from poise.evaluate.records import read_records
from poise.evaluate.records import read_representations
from poise.evaluate.runs import read_run
from tests.unit.cli.conftest import save_letter_adapter
from tests.unit.cli.eval.conftest import Call, ask

from .conftest import TESTS


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
    assert [q.isomer_id for q in run.after.questions if q.test == "deeper"].count("s0") == 2


def test_two_runs_stand_beside_each_other_and_the_model_before(
    call: Call, letters_path: str, isomers_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = save_letter_adapter(tmp_path / "plain", letters_path, seed=2)
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
    runs = [save_letter_adapter(tmp_path / f"s{seed}", letters_path, seed) for seed in range(1, 4)]
    for seed, run in enumerate(runs):
        (run / "metrics.jsonl").touch()
        (run / "config.yaml").write_text(yaml.safe_dump({"config": {"seed": seed, "rate": 1.0}}))
    words = ("--dataset_name", isomers_path, "--compare", *runs)
    found = ask(call, *words)
    (group,) = found["over_seeds"]
    assert group["runs"] == ["s1", "s2", "s3"]
    means = [e["tests"]["deeper"]["accuracy"]["mean"] for e in found["evaluations"][1:]]
    assert group["tests"]["deeper"]["accuracy"]["mean"] == pytest.approx(sum(means) / 3)
    assert "Means of 3 seeds" in call(*words)[1]


def test_records_say_which_set_and_test(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    ask(call, "--model", letters_path, "--dataset_name", isomers_path)
    records = read_records(tmp_path / "evaluations" / "base.jsonl").questions
    assert {q.test for q in records} == set(TESTS)
    assert {q.answer for q in records} == {"e0"}
    assert {x for q in records for x in q.extracted} <= {"e0", "e1", None}
    assert "s0/law/deeper" in {q.id for q in records}


def test_answers_that_are_cut_are_told_once(call: Call, isomers_path: Path, run_path: Path) -> None:
    _, _, err = call("--compare", run_path, "--dataset_name", isomers_path, "--max_new_tokens", "2")
    (line,) = [line for line in err.splitlines() if "reference completions" in line]
    assert "poise eval: reference completions are longer than max_new_tokens (2)" in line
    assert "in_distribution 6 of 6, reversed 6 of 6, deeper 6 of 6" in line


def test_mistakes_are_one_line(call: Call, letters_path: str, isomers_path: Path) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path)
    for flags, complaint in (
        (["--center", "median"], "center: expected one of mean, standard, none"),
        (["--layer", "9"], "layer: expected 0 (embeddings) to 2"),
        (["--limit", "1"], "limit: expected 2 or more, one isomer set"),
    ):
        status, out, err = call(*words, *flags)
        assert status == 2 and out == ""
        assert complaint in err.strip().splitlines()[-1]
