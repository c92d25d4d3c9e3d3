"""Rows and files that cannot be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, IterableDataset

from poise.rows import check_dataset, read_jsonl, write_jsonl

CHAT = [{"role": "user", "content": "Which?"}]
GOOD: list[list[dict[str, Any]]] = [
    [{"prompt": "Which?"}],
    [{"prompt": CHAT, "answer": "A", "options": ["x", "y"]}],
    [{"prompt": "Which?", "answer": "42"}],
    [{"prompt": "Which?", "answer": "none", "options": ["w", "x"], "privileged_context": ""}],
    [{"prompt": "Which?", "answer": ""}, {"prompt": "Which?", "answer": None}],
    [{"prompt": [{"role": "user", "content": [{"type": "text", "text": "Which?"}]}]}],
]


@pytest.mark.parametrize("rows", GOOD)
def test_good_rows_pass_as_list_and_as_dataset(rows: list[dict[str, Any]]) -> None:
    check_dataset(rows)
    check_dataset(Dataset.from_list(rows))


BAD: dict[str, tuple[Any, str]] = {
    "none": (None, r"dataset: expected rows with a column 'prompt', found none"),
    "empty": ([], r"dataset: expected at least one row, found none; it is empty"),
    "empty table": (Dataset.from_dict({"prompt": []}), r"it is empty"),
    "a path": ("train.jsonl", r"expected a Dataset or a list of rows, found str"),
    "a number": (3, r"expected a Dataset or a list of rows, found int"),
    "rows of text": (["Which?"], r"expected rows that are dicts, found str"),
    "missing": ([{"question": "x"}], r"expected a column 'prompt', found 'question'; add it"),
    "misspelt": (
        [{"promt": "x", "answer": "A"}],
        r"expected a column 'prompt', found 'promt', 'answer'; did you mean 'promt'\? Rename it",
    ),
    "blank prompt": ([{"prompt": "x"}, {"prompt": " \n"}], r"row 1: expected a filled 'prompt'"),
    "no prompt": ([{"prompt": "x"}, {"prompt": None}], r"row 1: expected a filled 'prompt'"),
    "no messages": ([{"prompt": []}], r"row 0: expected a filled 'prompt', found \[\]"),
    "silent message": (
        [{"prompt": CHAT}, {"prompt": [*CHAT, {"role": "user", "content": ""}]}],
        r"row 1: expected a filled prompt, found a last message without content",
    ),
    "prompt of numbers": ([{"prompt": 7}], r"row 0: expected a prompt that is text or a list"),
    "prompt of texts": ([{"prompt": ["x"]}], r"row 0: expected a prompt that is text or a list"),
    "no role": (
        [{"prompt": [{"content": "x"}]}],
        r"row 0: expected messages with 'role' and 'content', found one with 'content'; add its",
    ),
    "an image": (
        [{"prompt": [{"role": "user", "content": [{"type": "image"}]}]}],
        r"row 0: expected messages of text, found a part of type 'image'",
    ),
    "a part that is none": (
        [{"prompt": [{"role": "user", "content": ["x"]}]}],
        r"row 0: expected messages of text, found a part of type 'str'",
    ),
    "a number for content": (
        [{"prompt": [{"role": "user", "content": 5}]}],
        r"row 0: expected messages whose content is text, found int",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_give_one_clear_error(case: str) -> None:
    rows, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        check_dataset(rows)


def test_other_columns_can_be_required() -> None:
    with pytest.raises(ValueError, match="expected a column 'domain'"):
        check_dataset([{"prompt": "x"}], required=("prompt", "domain"))


def test_other_columns_can_have_to_be_filled() -> None:
    rows = [{"prompt": "x", "answer": "A"}, {"prompt": "x", "answer": None}]
    check_dataset(rows)
    message = r"^my, row 1: expected a filled 'answer', found None; fix or"
    with pytest.raises(ValueError, match=message):
        check_dataset(rows, filled=("prompt", "answer"), name="my")


def test_a_stream_is_checked_by_its_first_rows_and_keeps_them() -> None:
    def rows(last: str) -> Any:
        for index in range(20):
            yield {"prompt": last if index == 3 else "x"}

    stream = IterableDataset.from_generator(rows, gen_kwargs={"last": "x"})
    check_dataset(stream)
    assert len(list(stream)) == 20
    with pytest.raises(ValueError, match="row 3"):
        check_dataset(IterableDataset.from_generator(rows, gen_kwargs={"last": ""}))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    return path


def test_a_file_of_objects_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": "a → b"}, {"prompt": "c", "answer": "A"}]
    path = write(
        tmp_path / "x.jsonl", json.dumps(rows[0], ensure_ascii=False), "", json.dumps(rows[1])
    )
    assert read_jsonl(path) == rows


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}", '{"prompt": "\udce9"}'], "x.jsonl, line 2: expected one JSON object in UTF-8"),
        (['{"prompt": "x"}', "", '{"prompt": '], "x.jsonl, line 3: expected one JSON object"),
        (['{"prompt": "x"}', "[1]"], "x.jsonl, line 2: expected a JSON object .* found list"),
        (['"text"'], "x.jsonl, line 1: expected a JSON object .* found str"),
        (["", " "], "x.jsonl: expected at least one line with a JSON object, found none"),
        (["prompt,answer"], "x.jsonl, line 1: expected one JSON object"),
    ],
)
def test_unreadable_json_names_file_and_line(
    lines: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        read_jsonl(write(tmp_path / "x.jsonl", *lines))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "x.jsonl", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"expected a \.jsonl file, found no file there"
        ):
            read_jsonl(path)


def test_lines_appear_under_their_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def rows() -> Any:
        yield {"a": "ä"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    assert path.read_text() == "old"
    write_jsonl(path, [{"a": "ä"}])
    assert path.read_text() == '{"a": "ä"}\n'
    assert list(tmp_path.iterdir()) == [path]
