"""Result lines: added, never edited, whole or passed over."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from lab.results import Results


def record(key: str, score: Any = 1.0) -> dict[str, Any]:
    return {"key": key, "config": {"seed": 1}, "figures": {"score": score}}


def test_what_is_added_is_read(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert results.read() == ({}, [])
    results.append(record("a"))
    results.append(record("b", "é"))
    assert results.read() == ({"a": record("a"), "b": record("b", "é")}, [])
    assert [json.loads(line)["key"] for line in results.path.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize("kept", [1, 20, -2])
def test_a_line_that_a_kill_cut_off_is_passed_over_and_the_next_starts_anew(
    tmp_path: Path, kept: int
) -> None:
    results = Results(tmp_path)
    results.append(record("a"))
    results.append(record("b"))
    lines = results.path.read_bytes().splitlines(keepends=True)
    torn = lines[0] + lines[1][:kept]
    results.path.write_bytes(torn)
    assert results.read() == ({"a": record("a")}, [2])
    results.append(record("c"))
    assert results.read() == ({"a": record("a"), "c": record("c")}, [2])
    assert results.path.read_bytes().startswith(torn + b"\n")


def test_a_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append(record("a"))
    results.path.write_bytes(results.path.read_bytes().rstrip(b"\n"))
    results.append(record("b"))
    assert results.read() == ({"a": record("a"), "b": record("b")}, [])


def test_of_two_lines_with_one_key_the_first_counts(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.append(record("a", 1.0))
    results.append(record("a", 2.0))
    assert results.read() == ({"a": record("a", 1.0)}, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_is_no_json_is_refused_and_leaves_nothing(tmp_path: Path, value: Any) -> None:
    results = Results(tmp_path)
    results.append(record("a"))
    before = results.path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        results.append(record("b", value))
    assert results.path.read_bytes() == before


def test_lines_are_compressed_and_plain_ones_win(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.compress()  # nothing to do
    for key in "ab":
        results.append(record(key, "é"))
    lines = results.path.read_bytes()
    with results.path.open("ab") as file:
        file.write(b'{"key": "c", ')  # cut off by a kill
    results.compress()
    assert not results.path.exists()
    assert lzma.decompress(results.compressed.read_bytes()) == lines
    assert results.read() == ({"a": record("a", "é"), "b": record("b", "é")}, [])
    with results.claim("a") as mine:
        assert not mine
    results.append(record("c"))
    results.append(record("a", 2.0))
    both = {"c": record("c"), "a": record("a", 2.0), "b": record("b", "é")}
    assert results.read() == (both, [])
    before = results.compressed.read_bytes()
    results.compress()
    assert results.read() == (both, []) and results.compressed.read_bytes() != before
    assert {path.name for path in tmp_path.iterdir()} == {"results.jsonl.xz", ".locks"}


def test_a_run_is_claimed_once_and_not_again_when_it_is_done(tmp_path: Path) -> None:
    one, other = Results(tmp_path), Results(tmp_path)
    with one.claim("a") as mine:
        assert mine
        with other.claim("a") as theirs, other.claim("b") as another:
            assert (theirs, another) == (False, True)
    with other.claim("a") as theirs:
        assert theirs
        other.append(record("a"))
    with one.claim("a") as mine:
        assert not mine
