"""SciKnowEval from files and from a stand-in for the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from poise.data.sciknoweval import HUB_ID, load_sciknoweval, parse_question
from poise.splits import SPLITS

SYSTEM = "Answer in tags."


def question(number: int, domain: str = "physics", two: bool = False) -> dict[str, Any]:
    options = "A: yes\nB: no" if two else "A: 1 N\nB: 2 N\nC: 3 N\nD: 4 N"
    return {
        "id": f"{domain}-{number}",
        "domain": domain,
        "system": SYSTEM,
        "prompt": f"Case {number}: which force?\n\n{options}\nPlease reason step by step.",
        "answer": "B",
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "physics" / "train.jsonl", [question(1), question(2)])
    write(tmp_path / "biology" / "train.jsonl", [question(3, "biology", two=True)])
    write(tmp_path / "physics" / "test.jsonl", [question(4)])
    return tmp_path


def test_a_folder_gives_all_domains_of_a_split_as_chat(folder: Path) -> None:
    table = load_sciknoweval(folder, "train")
    assert sorted(table["id"]) == ["biology-3", "physics-1", "physics-2"]
    row = next(row for row in table if row["id"] == "physics-1")
    assert row["prompt"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": question(1)["prompt"]},
    ]
    assert (row["answer"], row["domain"]) == ("B", "physics")
    assert row["options"] == ["1 N", "2 N", "3 N", "4 N"]
    # A file is taken whole, and a folder may be flat.
    assert load_sciknoweval(folder / "physics" / "test.jsonl", "train")["id"] == ["physics-4"]
    assert load_sciknoweval(folder / "physics", "test")["id"] == ["physics-4"]


def test_domains_can_be_chosen(folder: Path) -> None:
    assert load_sciknoweval(folder, "train", ["biology"])["options"] == [["yes", "no"]]
    with pytest.raises(ValueError, match=r"expected some of biology, physics, found"):
        load_sciknoweval(folder, "train", ["alchemy"])
    with pytest.raises(ValueError, match="found 'biology'"):
        load_sciknoweval(folder, "train", "biology")


def test_another_style_is_rendered_from_the_parts(folder: Path) -> None:
    (prompt,) = load_sciknoweval(folder, "test", style="plain")["prompt"]
    expected = "Question: Case 4: which force?\nA) 1 N\nB) 2 N\nC) 3 N\nD) 4 N\nAnswer:"
    assert prompt.endswith(expected)


@pytest.mark.parametrize(
    ("style", "told"),
    [("chat", "<answer>\nB\n</answer>"), ("plain", "Answer: B"), ("short", "2 N")],
)
def test_reference_answers_have_the_form_of_the_style(folder: Path, style: str, told: str) -> None:
    table = load_sciknoweval(folder, "test", style=style, reference=True)
    assert table["privileged_context"] == [told]
    plain = load_sciknoweval(folder, "test", style=style)
    assert plain.to_list() == table.remove_columns("privileged_context").to_list()


def test_a_question_falls_into_stem_and_options() -> None:
    text = "Data:\nA: 1\nB: 2\n\nWhich?\n\nA: x: y\nB: two\nlines\nPlease reason step by step."
    assert parse_question(text) == ("Data:\nA: 1\nB: 2\n\nWhich?", ["x: y", "two\nlines"])


@pytest.mark.parametrize("text", ["Which?", "Which?\nA: x", "Which?\nB: x\nC: y", "A: x\nC: y"])
def test_a_question_without_options_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected options in lines 'A: ...', 'B: ...', found"):
        parse_question(text)


def test_rows_that_are_no_questions_name_file_and_row(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [question(1), {**question(2), "prompt": "Which?"}])
    with pytest.raises(ValueError, match=r"x\.jsonl, row 1: expected options"):
        load_sciknoweval(path)
    path = write(tmp_path / "x.jsonl", [question(1), {**question(2), "answer": "E"}])
    with pytest.raises(ValueError, match=r"x\.jsonl, row 1: expected an answer among A, B, C, D"):
        load_sciknoweval(path)
    path = write(tmp_path / "x.jsonl", [{"promt": "x", "answer": "A"}])
    with pytest.raises(ValueError, match="did you mean 'promt'"):
        load_sciknoweval(path)


def test_missing_files_say_what_there_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found the splits test, train"):
        load_sciknoweval(folder, "validation")
    with pytest.raises(FileNotFoundError, match=r"expected a folder or a \.jsonl file"):
        load_sciknoweval(tmp_path / "nowhere", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"found no \.jsonl files"):
        load_sciknoweval(tmp_path / "empty", "train")


def hub_row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "question": f"Case {number}: which force?\n",
        "answer": "",
        "answerKey": "C",
        "choices": {"text": ["1", "2", "3", "4"], "label": ["A", "B", "C", "D"]},
        "type": "mcq-4-choices",
        "domain": "Material",
        "details": {"level": "L3", "task": "t", "subtask": "s", "source": "x"},
        "prompt": {"default": ""},
        **changes,
    }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A hub with 60 usable rows and some that are not."""
    rows = [hub_row(n) for n in range(60)]
    rows += [
        hub_row(100, domain="Astrology"),
        hub_row(101, type="open-ended-qa"),
        hub_row(102, details={"level": "L1", "task": "t", "subtask": "s", "source": "x"}),
    ]

    def load_dataset(name: str, split: str) -> datasets.Dataset:
        assert (name, split) == (HUB_ID, "test")
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return rows


def test_the_hubs_rows_become_ours_in_three_disjoint_splits(hub: list[dict[str, Any]]) -> None:
    tables = {split: load_sciknoweval(None, split) for split in SPLITS}
    ids = [set(table["id"]) for table in tables.values()]
    assert sum(map(len, ids)) == len(set.union(*ids)) == 60
    assert len(tables["train"]) > 30
    row = tables["test"][0]
    assert (row["answer"], row["domain"], row["options"]) == (
        "C",
        "materials",
        ["1", "2", "3", "4"],
    )
    user = row["prompt"][1]["content"]
    assert user.endswith("which force?\n\nA: 1\nB: 2\nC: 3\nD: 4\nPlease reason step by step.")


def test_the_same_question_with_other_options_stays_in_its_split(hub: list[dict[str, Any]]) -> None:
    changed = [hub_row(n, choices={"text": ["9", "8"], "label": ["A", "B"]}, type="mcq-2-choices",
                       answerKey="A") for n in range(60)]  # fmt: skip
    before = {row["prompt"][1]["content"].split("\n")[0] for row in load_sciknoweval(None, "test")}
    hub[:] = changed
    after = {row["prompt"][1]["content"].split("\n")[0] for row in load_sciknoweval(None, "test")}
    assert before == after


def test_a_hub_that_has_changed_names_the_column(hub: list[dict[str, Any]]) -> None:
    for row in hub:
        row["answer_key"] = row.pop("answerKey")
    with pytest.raises(
        ValueError, match=r"expected a column 'answerKey'.*did you mean 'answer_key'"
    ):
        load_sciknoweval(None, "train")
