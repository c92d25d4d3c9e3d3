"""`poise eval` on logical isomers: tests side by side, runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from poise.cli.eval import (
    GENERATED_COUNTS,
    EvalArguments,
    Step,
    choose_dataset,
    cut_references,
    select,
)
from poise.evaluate.isomers import MEAN, logical_consistency, outcomes
from poise.evaluate.load import Target
from poise.evaluate.records import read_records, read_representations
from poise.evaluate.runs import read_run
from tests.unit.cli.conftest import save_letter_adapter

from .conftest import Call, ask

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


def test_representations_are_not_made_again_unless_asked(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path)
    first = ask(call, *words)
    file = tmp_path / "evaluations" / "base.representations.safetensors"
    stamp = file.stat().st_mtime_ns
    assert ask(call, *words) == first
    assert file.stat().st_mtime_ns == stamp
    status, _, err = call(*words, "--layer", "0")
    assert status == 2 and "'layer': 0" in err and "--overwrite" in err
    again = ask(call, *words, "--layer", "0", "--overwrite")["evaluations"][0]
    assert again["representations"]["layer"] == 0
    assert again["tests"]["deeper"]["consistency"] != first["evaluations"][0]["tests"]["deeper"]


def test_the_center_is_chosen_without_reading_the_model_again(
    call: Call, letters_path: str, isomers_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path)
    scores = {
        center: ask(call, *words, "--center", center)["evaluations"][0]["consistency"]["score"]
        for center in ("mean", "standard", "none")
    }
    assert len({score["mean"] for score in scores.values()}) == 3


def test_representations_may_be_left_out(
    call: Call, letters_path: str, isomers_path: Path, tmp_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path, "--consistency", "false")
    (evaluation,) = ask(call, *words)["evaluations"]
    assert evaluation["consistency"] is None and evaluation["representations"] is None
    assert evaluation["tests"]["deeper"]["consistency"] is None
    assert evaluation["disagreement"]["sets"] == 9
    assert [f.name for f in (tmp_path / "evaluations").iterdir()] == ["base.jsonl"]
    assert "Consistency Score" not in call(*words)[1]


def test_a_limit_keeps_isomer_sets_whole() -> None:
    rows = isomer_rows(sets=4)
    chosen = select(rows, 7)
    assert [(row["test"], row["isomer_id"]) for row in chosen[::2]] == [
        ("in_distribution", "s0"),
        ("reversed", "s0"),
        ("deeper", "s0"),
    ]
    assert [row["domain"] for row in chosen] == ["law", "science"] * 3
    assert select(rows, 24) == rows and len(select(rows, 23)) == 22


def test_a_limit_is_asked_for_what_it_says(
    call: Call, letters_path: str, isomers_path: Path
) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path, "--limit")
    assert ask(call, *words, "7")["evaluations"][0]["questions"] == 6
    status, _, err = call(*words, "4")
    assert status == 2 and "found 4, which leaves out deeper" in err


def test_the_tests_are_those_of_the_runs_own_training(tmp_path: Path) -> None:
    script = {"dataset": "isomers:ordering", "question_seed": 5, "questions": 900}
    script |= {"depths": [1, 2], "cue_strength": 0.9, "domains": ["law"]}
    config = {"script": {**script, "split": "train"}, "config": {"domains": ["mathematics"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    steps = [Step("after", Target("m", None, "m", tmp_path), ())]
    arguments = EvalArguments(compare=["x"], tests=["reversed"], count=7)
    assert choose_dataset(arguments, steps) == (
        "isomers:ordering",
        {
            "seed": 5,
            "count": 7,
            "tests": ["reversed"],
            "depths": [1, 2],
            "domains": ["mathematics"],
            "cue_strength": 0.9,
        },
    )
    _, of_all = choose_dataset(EvalArguments(dataset_name="isomers", depths=[3]), steps)
    assert of_all["domains"] == ["mathematics"] and of_all["depths"] == [3]
    bare = EvalArguments(dataset_name="isomers", cue_strength=0.8)
    count = GENERATED_COUNTS["isomers"]
    assert choose_dataset(bare, []) == (
        "isomers",
        {"count": count, "tests": True, "cue_strength": 0.8},
    )


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


def test_some_tests_are_asked(call: Call, letters_path: str, isomers_path: Path) -> None:
    words = ("--model", letters_path, "--dataset_name", isomers_path, "--tests")
    found = ask(call, *words, "deeper", "reversed")
    assert list(found["evaluations"][0]["tests"]) == ["reversed", "deeper", MEAN]
    assert found["selection"] == {"tests": ["deeper", "reversed"]}
    status, _, err = call(*words, "depper")
    assert status == 2 and "tests: expected some of" in err and "'depper'" in err


def step(folder: Path, script: dict[str, Any], config: dict[str, Any]) -> Step:
    folder.mkdir()
    sections = {"script": {"dataset": "isomers", **script}, "config": config}
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    return Step(folder.name, Target("m", None, "m", folder), ())


@pytest.fixture
def steps(tmp_path: Path) -> list[Step]:
    """Two runs with the defaults, left out or said in another order."""
    said = {"domains": ["law", "science", "medicine", "mathematics"]}
    return [step(tmp_path / "a", {}, {}), step(tmp_path / "b", {"depths": [2, 1]}, said)]


@pytest.mark.parametrize(
    ("name", "section", "value"),
    [
        ("depths", "script", [1]),
        ("domains", "config", ["mathematics", "sports"]),
        ("cue_strength", "script", 0.5),
    ],
)
def test_runs_that_were_trained_on_other_isomers_are_not_compared(
    steps: list[Step], tmp_path: Path, name: str, section: str, value: Any
) -> None:
    arguments = EvalArguments(dataset_name="isomers")
    assert name not in choose_dataset(arguments, steps)[1]
    parts: dict[str, dict[str, Any]] = {"script": {}, "config": {}}
    parts[section][name] = value
    steps.append(step(tmp_path / "c", **parts))
    with pytest.raises(ValueError, match=rf"different {name} \(default; .*compare them one by one"):
        choose_dataset(arguments, steps)
    own = EvalArguments(dataset_name="isomers", **{name: value})
    assert choose_dataset(own, steps)[1][name] == value


def test_runs_on_other_questions_have_no_say(steps: list[Step], tmp_path: Path) -> None:
    other = step(tmp_path / "c", {"dataset": "science"}, {"domains": ["physics"]})
    _, options = choose_dataset(EvalArguments(dataset_name="isomers"), [other, *steps])
    assert "domains" not in options


def words(text: str, add_special_tokens: bool) -> dict[str, list[str]]:
    assert not add_special_tokens
    return {"input_ids": text.split()}


def isomer(completion: Any, test: str | None = None) -> dict[str, Any]:
    return {"isomer_id": "s", "completion": completion, "test": test}


def test_references_that_do_not_fit_are_counted_by_test() -> None:
    rows = [isomer("a b c", "deeper"), isomer("a b", "deeper"), isomer("a", "no_cue")]
    assert cut_references(rows, words, 3) is None
    said = cut_references(rows, words, 2)
    assert said is not None and "(2): deeper 1 of 2; " in said and "the longest takes 3" in said
    said = cut_references(rows, words, 1)
    assert said is not None and "deeper 2 of 2" in said and "no_cue" not in said


def test_chats_are_read_and_other_questions_are_not() -> None:
    chat = [{"role": "assistant", "content": "a b c"}]
    assert "all 1 of 1" in str(cut_references([isomer(chat)], words, 2))
    others = [{"completion": "a b c"}, isomer(None), {"isomer_id": "s"}]
    assert cut_references(others, words, 2) is None
