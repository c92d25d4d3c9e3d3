"""What `poise eval` asks: what the runs were trained on, unless it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from poise.cli.eval import EvalArguments
from poise.cli.eval_questions import (
    choose_dataset,
    choose_template,
    cut_references,
    generated_count,
    select,
)

from .test_isomers import isomer_rows


@pytest.mark.parametrize("old", [True, False])
def test_generated_questions_are_made_as_in_training(tmp_path: Path, old: bool) -> None:
    name = "reasoning_gym:leg_counting"
    script = {"dataset" if old else "dataset_name": name, "style": "plain", "question_seed": 4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"script": script}))
    expected = {"style": "plain", "seed": 4, "count": 200}
    assert choose_dataset(EvalArguments(), [tmp_path]) == (name, expected)
    assert choose_dataset(EvalArguments(dataset_name="facts"), [tmp_path]) == ("facts", {})


def test_the_tests_are_those_of_the_runs_own_training(tmp_path: Path) -> None:
    script = {"dataset": "isomers:ordering", "question_seed": 5, "questions": 900}
    script |= {"depths": [1, 2], "cue_strength": 0.9, "domains": ["law"]}
    config = {"script": {**script, "split": "train"}, "config": {"domains": ["mathematics"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = EvalArguments(compare=["x"], tests=["reversed"], count=7)
    assert choose_dataset(arguments, [tmp_path]) == (
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
    _, of_all = choose_dataset(EvalArguments(dataset_name="isomers", depths=[3]), [tmp_path])
    assert of_all["domains"] == ["mathematics"] and of_all["depths"] == [3]
    bare = EvalArguments(dataset_name="isomers", cue_strength=0.8)
    count = generated_count("isomers")
    expected = {"count": count, "tests": True, "cue_strength": 0.8}
    assert choose_dataset(bare, []) == ("isomers", expected)


def run(folder: Path, script: dict[str, Any], config: dict[str, Any]) -> Path:
    folder.mkdir()
    sections = {"script": {"dataset": "isomers", **script}, "config": config}
    (folder / "config.yaml").write_text(yaml.safe_dump(sections))
    return folder


@pytest.mark.parametrize(
    ("name", "section", "value"),
    [
        ("depths", "script", [1]),
        ("domains", "config", ["mathematics", "sports"]),
        ("cue_strength", "script", 0.5),
    ],
)
def test_runs_that_were_trained_on_other_isomers_are_not_compared(
    tmp_path: Path, name: str, section: str, value: Any
) -> None:
    """Beside two runs with the defaults, left out or said in another order."""
    said = {"domains": ["law", "science", "medicine", "mathematics"]}
    runs = [run(tmp_path / "a", {}, {}), run(tmp_path / "b", {"depths": [2, 1]}, said)]
    arguments = EvalArguments(dataset_name="isomers")
    assert name not in choose_dataset(arguments, runs)[1]
    other = run(tmp_path / "other", {"dataset": "science"}, {"domains": ["physics"]})
    assert "domains" not in choose_dataset(arguments, [other, *runs])[1]
    parts: dict[str, dict[str, Any]] = {"script": {}, "config": {}}
    parts[section][name] = value
    runs.append(run(tmp_path / "c", **parts))
    with pytest.raises(ValueError, match=rf"different {name} \(default; .*compare them one by one"):
        choose_dataset(arguments, runs)
    own = EvalArguments(dataset_name="isomers", **{name: value})
    assert choose_dataset(own, runs)[1][name] == value


def test_models_think_as_in_training_unless_told_otherwise(tmp_path: Path) -> None:
    trained = {"chat_template_kwargs": {"enable_thinking": True, "hint": "x"}}
    plain, thinks = run(tmp_path / "a", {}, {}), run(tmp_path / "b", {}, trained)
    arguments, not_so = EvalArguments(), EvalArguments(thinking=False)
    assert choose_template(arguments, []) == {"enable_thinking": False}
    assert choose_template(EvalArguments(thinking=True), [plain]) == {"enable_thinking": True}
    assert choose_template(arguments, [thinks]) == {"enable_thinking": True, "hint": "x"}
    assert choose_template(not_so, [thinks]) == {"enable_thinking": False, "hint": "x"}
    with pytest.raises(ValueError, match="different chat_template_kwargs"):
        choose_template(arguments, [plain, thinks])


def test_a_limit_is_spread_evenly_and_keeps_isomer_sets_whole() -> None:
    plain = [{"id": i} for i in range(12)]
    assert [row["id"] for row in select(plain, 4)] == [0, 3, 6, 9]
    rows = isomer_rows(sets=4)
    chosen = select(rows, 7)
    assert [(row["test"], row["isomer_id"]) for row in chosen[::2]] == [
        ("in_distribution", "s0"),
        ("reversed", "s0"),
        ("deeper", "s0"),
    ]
    assert [row["domain"] for row in chosen] == ["law", "science"] * 3
    assert select(rows, 24) == rows and len(select(rows, 23)) == 22
    for limit, complaint in (
        (0, "limit: expected 1 or more"),
        (1, "limit: expected 2 or more, one isomer set"),
        (4, "found 4, which leaves out deeper"),
    ):
        with pytest.raises(ValueError, match=complaint):
            select(rows, limit)


def test_cases_that_a_program_is_tested_by_are_no_tests_name() -> None:
    rows = [{"id": i, "test": test} for i, test in enumerate((["assert f(1)"], {}, 3, None))]
    assert [row["test"] for row in select(rows, None)] == [None, None, "3", None]
    assert [row["id"] for row in select(rows, None, ["3"])] == [2]
    assert [row["id"] for row in select(rows, 2)] == [0, 2]


def split_text(text: str, add_special_tokens: bool) -> dict[str, list[str]]:
    assert not add_special_tokens
    return {"input_ids": text.split()}


def isomer(completion: Any, test: str | None = None) -> dict[str, Any]:
    return {"isomer_id": "s", "completion": completion, "test": test}


def test_references_that_do_not_fit_are_counted_by_test() -> None:
    rows = [isomer("a b c", "deeper"), isomer("a b", "deeper"), isomer("a", "no_cue")]
    assert cut_references(rows, split_text, 3) is None
    said = cut_references(rows, split_text, 2)
    assert said is not None and "(2): deeper 1 of 2; " in said and "the longest takes 3" in said
    said = cut_references(rows, split_text, 1)
    assert said is not None and "deeper 2 of 2" in said and "no_cue" not in said
    chat = [{"role": "assistant", "content": "a b c"}]
    assert "all 1 of 1" in str(cut_references([isomer(chat)], split_text, 2))
    others = [{"completion": "a b c"}, isomer(None), {"isomer_id": "s"}]
    assert cut_references(others, split_text, 2) is None
