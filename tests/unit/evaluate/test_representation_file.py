"""Files of representations: written, read, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from poise.evaluate.records import RecordError
from poise.evaluate.records import (
    Place,
    Representations,
    beside,
    kept_representations,
    read_representations,
    write_representations,
)

from .constructed import header

PLACES = (Place("s/law", "s", "law", "deeper"), Place("s/λ", "s", "λ"))
FOUND = Representations(header(), PLACES, np.array([[1, 2, 3], [4, 5, 6]], dtype=np.float32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_representations(beside(tmp_path / "evaluation" / "after.jsonl"), FOUND)


def test_what_is_written_is_read_back(file: Path) -> None:
    assert file.name == "after.representations.safetensors"
    found = read_representations(file)
    assert (found.header, found.places) == (header(), PLACES)
    np.testing.assert_array_equal(found.vectors, FOUND.vectors)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_was_kept_is_used_again_only_for_the_same(file: Path) -> None:
    found = kept_representations(file, header(created="later", versions={}), PLACES)
    assert found is not None and found.places == PLACES
    assert kept_representations(file.with_name("none"), header(), PLACES) is None
    with pytest.raises(RecordError, match=r"'weights': 'other'.*found .*None.*--overwrite"):
        kept_representations(file, header(weights="other"), PLACES)
    with pytest.raises(RecordError, match=r"'problems': 1.*'others'"):
        kept_representations(file, header(), PLACES[:1])


def test_a_missing_file_and_another_format_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected representations at"):
        read_representations(tmp_path / "none")
    save_file({"vectors": FOUND.vectors}, file)
    with pytest.raises(RecordError, match="expected format 'poise-representations', version 1"):
        read_representations(file)


def test_a_damaged_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(RecordError, match="damaged representations"):
        read_representations(file)


def test_rows_without_a_problem_and_broken_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one row for each of 1 problems, found shape \(2, 3\)"):
        Representations(header(), PLACES[:1], FOUND.vectors)
    with pytest.raises(ValueError, match="finite values"):
        Representations(header(), PLACES, FOUND.vectors * np.nan)
