"""Which isomer sets and tests `poise eval` asks."""

from __future__ import annotations

from pathlib import Path

import yaml

from poise.cli import eval_plan
from poise.cli.eval import EvalArguments
from poise.cli.eval import Step, choose_dataset, select
from poise.evaluate.isomers import MEAN
from poise.evaluate.load import Target
from tests.unit.cli.eval.conftest import Call, ask

from .conftest import isomer_rows


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
    count = eval_plan.GENERATED_COUNTS["isomers"]
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
