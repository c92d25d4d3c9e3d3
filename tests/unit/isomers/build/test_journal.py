"""What is on disk survives a kill, and is never mixed with another build."""

from __future__ import annotations

from pathlib import Path

import pytest

from poise.isomers.build.journal import Journal, Outcome

SETTINGS = {"teacher": "endpoint:m", "domains": ["law", "science"], "slack": 1}
KEPT = Outcome("p1", "law", True, 2, "How many?", " 5.\nAnswer: 5", "5")
REJECTED = Outcome("p1", "science", False, 3, reason="the 5 is gone", reply="Ünsinn\n{")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two outcomes, in a folder that it made."""
    path = tmp_path / "new" / "isomers.journal.jsonl"
    journal = Journal(path, SETTINGS)
    journal.write(KEPT)
    journal.write(REJECTED)
    return path


def outcomes(path: Path) -> list[Outcome]:
    return list(Journal(path, SETTINGS).outcomes.values())


def test_outcomes_are_read_again(path: Path) -> None:
    assert outcomes(path) == [KEPT, REJECTED]


def test_a_last_line_cut_anywhere_is_dropped_and_written_again(path: Path) -> None:
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, SETTINGS)
        assert list(journal.outcomes.values()) == [KEPT]
        journal.write(REJECTED)
        assert path.read_bytes() == whole


def test_a_journal_without_outcomes_is_begun_anew(path: Path) -> None:
    header = path.read_bytes().splitlines(keepends=True)[0]
    for start in (header, header[:20], b""):
        path.write_bytes(start)
        Journal(path, {"teacher": "another"})
        assert b"another" in path.read_bytes()


def test_other_settings_are_refused_by_name(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"slack 1, now 2.*--overwrite") as error:
        Journal(path, {**SETTINGS, "slack": 2})
    assert "teacher" not in str(error.value)
    with pytest.raises(ValueError, match="sampling None, now"):
        Journal(path, {**SETTINGS, "sampling": {}})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        *("{}", "[]", "no json", '{"format": "poise-isomer-journal"}'),
        '{"format": "poise-isomer-journal", "version": 1, "settings": null}',
    ],
)
def test_another_file_is_refused(path: Path, line: str) -> None:
    path.write_text(f"{line}\n{line}\n")
    with pytest.raises(ValueError, match="expected the journal of a build"):
        Journal(path, SETTINGS)


@pytest.mark.parametrize("line", ["no json", "[]", '{"id": "p1"}', "3"])
def test_a_damaged_line_is_named(path: Path, line: str) -> None:
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(ValueError, match=r"journal\.jsonl, line 2: expected an outcome"):
        Journal(path, SETTINGS)
