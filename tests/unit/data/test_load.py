"""One name for every source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from poise.data import load
from poise.data.load import load_questions
from poise.rows import check_dataset
from tests.unit.data.test_sciknoweval import question, write


def test_a_source_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "KINDS", dict(load.KINDS))

    @load.register("sums")
    def sums(rest: str, split: str, largest: int = 9) -> datasets.Dataset:
        return datasets.Dataset.from_list([{"prompt": f"{rest} {split} {largest}"}])

    assert load_questions("sums:plus", largest=3)["prompt"] == ["plus train 3"]
    with pytest.raises(ValueError, match="sums: expected options among largest, found 'count'"):
        load_questions("sums", count=3)


def test_facts_are_drawn_by_split() -> None:
    train, test = load_questions("facts"), load_questions("facts", "test")
    assert len(train) + len(test) == 600 and not set(train["prompt"]) & set(test["prompt"])
    check_dataset(train)
    assert load_questions("facts", count=5, seed=1).to_list() != train.to_list()[:5]
    assert load_questions("facts", style="chat").to_list() == train.to_list()


def test_a_folder_in_sciknowevals_form_is_read(tmp_path: Path) -> None:
    write(tmp_path / "physics" / "train.jsonl", [question(n) for n in range(5)])
    write(tmp_path / "biology" / "train.jsonl", [question(n, "biology") for n in range(5)])
    assert len(load_questions(str(tmp_path), "train")) == 10
    assert len(load_questions(str(tmp_path), "train", domains=["biology"], count=3)) == 3
    file = str(tmp_path / "physics" / "train.jsonl")
    assert load_questions(file, "train", style="plain")["prompt"][0].endswith("Answer:")


def test_any_file_with_prompts_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} + 1 =", "answer": str(n + 1), "extra": n} for n in range(9)]
    path = write(tmp_path / "sums.jsonl", rows)
    assert load_questions(str(path), style="chat").to_list() == rows
    some = load_questions(str(path), count=4, seed=1)
    assert len(set(some["prompt"])) == 4
    assert some["prompt"] == load_questions(str(path), count=4, seed=1)["prompt"]


def test_a_files_reference_answers_are_for_the_teacher(tmp_path: Path) -> None:
    path = str(write(tmp_path / "train.jsonl", [question(1)]))
    assert "privileged_context" not in load_questions(path).column_names
    (told,) = load_questions(path, reference=True)["privileged_context"]
    assert told == "<answer>\nB\n</answer>"
    other = str(write(tmp_path / "other.jsonl", [{"prompt": "1 + 1 ="}]))
    with pytest.raises(ValueError, match=r"other\.jsonl: expected questions in SciKnowEval's form"):
        load_questions(other, reference=True)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        load_questions(str(tmp_path / "nowhere.jsonl"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_questions(str(tmp_path / "nowhere"))
    path = write(tmp_path / "x.jsonl", [{"promt": "x"}])
    with pytest.raises(ValueError, match=r"x\.jsonl: expected a column 'prompt'.*'promt'"):
        load_questions(str(path))
    path.write_text('{"prompt": "x"}')
    for count in (0, 2):
        with pytest.raises(ValueError, match=f"count: expected 1 to 1, .* found {count}"):
            load_questions(str(path), count=count)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("isomers:alchemy", {}, r"families: expected some of"),
        (
            "sciknoweval",
            {"stile": "plain"},
            r"sciknoweval: expected options .*'stile'; did you mean 'style'",
        ),
        ("reasoning_gym:sums", {"style": "fancy"}, r"style: expected one of chat, plain"),
        ("facts", {"split": "dev"}, r"facts: expected .* split train or test, found split 'dev'"),
        ("facts:chemistry", {}, r"facts: expected nothing behind it .* found 'chemistry'"),
        (
            "sciknoweval",
            {"levels": [1]},
            r"expected options among count, seed, style, reference, found 'levels'",
        ),
        ("reasoning_gym", {}, r"expected a task, as in reasoning_gym:leg_counting"),
        ("reasoning_gym:", {}, r"expected a task"),
    ],
)
def test_wrong_names_and_options_are_named(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_questions(name, **options)


def test_sciknoweval_comes_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.Dataset.from_list([{"prompt": "x", "answer": "A"}])
    seen: list[Any] = []
    monkeypatch.setattr(
        "poise.data.load.load_sciknoweval", lambda *args: seen.append(args) or table
    )
    assert load_questions("sciknoweval:physics", "test") is table
    assert seen == [(None, "test", ["physics"], "chat", False)]
    load_questions("sciknoweval", reference=True)
    assert seen[1] == (None, "train", None, "chat", True)


def test_another_name_is_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, config: str | None, **options: Any) -> datasets.Dataset:
        assert (name, config, options) == ("me/sums", "easy", {"split": "all", "revision": None})
        return datasets.Dataset.from_list([{"prompt": "x"}] * 3)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_questions("me/sums", "all", config="easy", count=2)) == 2


def test_a_hub_data_set_that_cannot_be_had_says_what_was_expected() -> None:
    with pytest.raises(ValueError, match=r"data set 'scence': expected 'facts', .*found none"):
        load_questions("scence")


def test_kinds_and_default_count_are_documented() -> None:
    ours = [kind for kind, source in load.KINDS.items() if source.__module__.startswith("poise.")]
    assert ours == ["facts", "sciknoweval", "reasoning_gym", "isomers"]
    for kind in ours:
        assert f"``{kind}" in load_questions.__doc__
    assert str(load.DEFAULT_COUNT) in load_questions.__doc__


def test_own_isomers_may_end_as_they_like(tmp_path: Path) -> None:
    rows = [
        {"isomer_id": f"s{i}", "domain": d, "prompt": f"{d} {i}?", "completion": " yes, by 3"}
        for i in range(2)
        for d in ("law", "music")
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert load_questions(str(path)).to_list() == rows
