"""Files of answers and of representations: written, read, continued, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from poise.evaluate.records import (
    Place,
    RecordError,
    RecordWriter,
    Representations,
    beside,
    read_records,
    read_representations,
    write_representations,
)

from .constructed import header, question


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "after.jsonl"
    RecordWriter(path, header()).write([question("q1", "AB"), question("q2", [None, "C"], "C")])
    return path


def change_line(path: Path, number: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[number - 1] = text
    path.write_text("\n".join(lines) + "\n")


def test_what_is_written_is_read_back(file: Path) -> None:
    found = read_records(file)
    assert found.header == header()
    assert found.questions == (question("q1", "AB"), question("q2", [None, "C"], "C"))
    assert found.notes == ()


def test_letters_beyond_ascii_survive(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    special = question(
        "q", "A", prompt="λ = 3 µm\u2028– 数", completions=("≈ 4\n\x85",), isomer_id="s1", test="t"
    )
    RecordWriter(path, header()).write([special])
    assert read_records(path).questions == (special,)


def test_a_half_written_last_line_is_left_out_and_reported(file: Path) -> None:
    with file.open("a") as stream:
        stream.write('{"id": "q3", "dom')
    found = read_records(file)
    assert [q.id for q in found.questions] == ["q1", "q2"]
    assert found.notes == (f"{file}:4: left out, the line is half-written",)


@pytest.mark.parametrize("tail", ["", '{"id": "q3", "dom', '{"half": 1}'])
def test_an_interrupted_file_is_continued_on_a_clean_line(file: Path, tail: str) -> None:
    with file.open("a") as stream:
        stream.write(tail)
    writer = RecordWriter(file, header())
    assert list(writer.done) == ["q1", "q2"]
    writer.write([question("q3", "AA")])
    found = read_records(file)
    assert [q.id for q in found.questions] == ["q1", "q2", "q3"]
    assert found.notes == ()


def test_a_file_is_not_continued_with_other_settings(file: Path) -> None:
    with pytest.raises(RecordError, match=r"seed.*8.*one with.*seed.*7.*--overwrite"):
        RecordWriter(file, header(seed=8))
    with pytest.raises(RecordError, match="weights"):
        RecordWriter(file, header(weights="0123"))
    other = header(versions={"poise": "0.2.0"}, created="2027-01-01T00:00:00+00:00")
    assert list(RecordWriter(file, other).done) == ["q1", "q2"]


@pytest.mark.parametrize(
    ("number", "text", "complaint"),
    [
        (1, '{"step": 1}', "expected format 'poise-evaluation', version 1, found None"),
        (
            1,
            '{"format": "poise-evaluation", "version": 9}',
            "expected format .*, version 9; read it",
        ),
        (1, '{"format": "poise-evaluation", "version": 1, "colour": 3}', "damaged header"),
        (2, "{oops", "expected a JSON object"),
        (2, "[1, 2]", "expected a JSON object, found list"),
        (2, '{"id": "q1"}', "damaged question: no 'completions'"),
        (2, "", "expected a JSON object"),
        (3, lambda lines: lines[1], "question 'q1' is there twice"),
        (
            3,
            lambda lines: json.dumps(json.loads(lines[2]) | {"rewards": [1.0]}),
            "damaged question: expected .* equal numbers",
        ),
    ],
)
def test_damage_is_named_by_file_and_line(
    file: Path, number: int, text: Any, complaint: str
) -> None:
    change_line(file, number, text if isinstance(text, str) else text(file.read_text().split("\n")))
    with pytest.raises(RecordError, match=rf"after\.jsonl:{number}: {complaint}"):
        read_records(file)


def test_a_missing_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected an evaluation file"):
        read_records(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RecordError, match="no complete line"):
        read_records(tmp_path / "empty.jsonl")
    assert RecordWriter(tmp_path / "empty.jsonl", header()).done == {}


def test_a_file_from_before_isomers_is_read(file: Path) -> None:
    line = json.loads(file.read_text().splitlines()[1])
    del line["isomer_id"], line["test"]
    change_line(file, 2, json.dumps(line))
    assert read_records(file).questions[0] == question("q1", "AB")


PLACES = (Place("s/law", "s", "law", "deeper"), Place("s/λ", "s", "λ"))
FOUND = Representations(header(), PLACES, np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    return write_representations(beside(tmp_path / "evaluation" / "after.jsonl"), FOUND)


def test_vectors_that_are_written_are_read_back(vectors: Path) -> None:
    assert vectors.name == "after.representations.safetensors"
    found = read_representations(vectors)
    assert (found.header, found.places) == (header(), PLACES)
    np.testing.assert_array_equal(found.vectors, FOUND.vectors)
    assert [path.name for path in vectors.parent.iterdir()] == [vectors.name]


def test_a_missing_file_and_another_format_are_refused(vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected representations at"):
        read_representations(tmp_path / "none")
    save_file({"vectors": FOUND.vectors}, vectors)
    with pytest.raises(RecordError, match="expected format 'poise-representations', version 1"):
        read_representations(vectors)


def test_a_damaged_file_is_refused(vectors: Path) -> None:
    vectors.write_bytes(vectors.read_bytes()[:40])
    with pytest.raises(RecordError, match="damaged representations"):
        read_representations(vectors)


def test_rows_without_a_problem_and_broken_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one row for each of 1 problems, found shape \(2, 3\)"):
        Representations(header(), PLACES[:1], FOUND.vectors)
    with pytest.raises(ValueError, match="finite values"):
        Representations(header(), PLACES, FOUND.vectors * np.nan)
