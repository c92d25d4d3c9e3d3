"""A user's rows become problems, or one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poise.isomers.build.problems import SourceProblem, read_problems


def read(folder: Path, *rows: dict[str, Any]) -> list[SourceProblem]:
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_problems(path)


def test_both_names_of_a_column_are_read(tmp_path: Path) -> None:
    one, other = read(
        tmp_path,
        {
            "prompt": " How many? ",
            "answer": 5,
            "completion": "2 and 3.\nAnswer: 5",
            "domain": "law",
        },
        {"question": "Is it?", "answer": "yes", "solution": "It is.", "id": 7},
    )
    assert (one.id, one.prompt, one.answer.logical) == ("row-0", "How many?", "5")
    assert (one.solution, one.domain) == ("2 and 3.", "law")
    assert (other.id, other.prompt, other.solution, other.domain) == ("7", "Is it?", "It is.", None)


def test_an_answer_with_its_solution_is_taken_apart(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"question": "How many?", "answer": "2 and 3 is 5\n#### 5"})
    assert (problem.solution, problem.answer.logical) == ("2 and 3 is 5", "5")


def test_options_of_a_column_are_written_below_the_prompt(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"prompt": "Which?", "options": ["x1", "y"], "answer": "B"})
    assert problem.prompt == "Which?\nA) x1\nB) y"
    assert (problem.answer.logical, problem.answer.text) == ("e1", "y")


def test_options_that_the_prompt_lists_are_not_written_again(tmp_path: Path) -> None:
    prompt = "Which? A) x1 B) y"
    (problem,) = read(tmp_path, {"prompt": prompt, "options": ["x1", "y"], "answer": "y"})
    assert problem.prompt == prompt


def test_a_prompt_that_waits_for_its_answer_is_cut(tmp_path: Path) -> None:
    (problem,) = read(tmp_path, {"prompt": "How many?\nAnswer:", "answer": 5})
    assert problem.prompt == "How many?"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "answer": "5"}], "row 0: expected a column 'prompt' or 'question'"),
        ([{"prompt": "a", "anwser": "5"}], "did you mean 'anwser'"),
        ([{"prompt": "a", "answer": ""}], "row 0: expected text in the column 'answer', found ''"),
        ([{"prompt": "a", "answer": None}], "expected text in the column 'answer', found None"),
        ([{"prompt": " ", "answer": "5"}], "expected text in the column 'prompt'"),
        ([{"prompt": [{"role": "user", "content": "a"}], "answer": "5"}], "expected text"),
        ([{"prompt": "a", "answer": "see above"}], "an answer that can be checked"),
        ([{"prompt": "a", "answer": "C", "options": ["x", "y"]}], "can be checked"),
        ([{"prompt": "a", "answer": "A", "options": ["x"]}], "2 to 8 texts in 'options'"),
        ([{"prompt": "a", "answer": "A", "options": ["x", ""]}], "2 to 8 texts in 'options'"),
        ([{"prompt": "a", "answer": "5", "solution": ["x"]}], "in the column 'solution'"),
        ([{"prompt": "a", "answer": 5, "id": "q"}] * 2, "'q' also in row 0"),
        ([], "at least one line"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        read(tmp_path, *rows)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.jsonl"):
        read_problems(tmp_path / "absent.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "answer": 5}\n{"prompt":\n')
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2"):
        read_problems(tmp_path / "bad.jsonl")
