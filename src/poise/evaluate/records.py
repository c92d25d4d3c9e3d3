"""Saved evaluations: what a model answered to which question, as versioned JSON lines.

The first line of a file is its header, every further line one question with its sampled
completions. Everything that Poise says about accuracy is computed from such a file, so a number
can be checked, or computed anew, without the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

FORMAT = "poise-evaluation"
VERSION = 1


class RecordError(ValueError):
    """An evaluation file is not what was expected; the message names file and line."""


@dataclass(frozen=True)
class Header:
    """What was run.

    Args:
        model: Name or path of the model.
        dataset: Name or path of the questions.
        split: Which part of them.
        sampling: k, temperature, top_p, max_new_tokens and whatever else shapes the samples.
        seed: Seed of the samples.
        adapter: Folder of the PEFT adapter, None without one.
        weights: Fingerprint of the weight files, so that a file is never continued with a model
            that was trained further in the meantime; None where there are none on this machine.
        selection: Which questions of the split (limit, domains, ...).
        versions: Versions of the software.
        created: When the file was begun, ISO 8601 in UTC.
    """

    model: str
    dataset: str
    split: str
    sampling: Mapping[str, Any]
    seed: int
    adapter: str | None = None
    weights: str | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def conflicts(self, other: Header) -> list[str]:
        """Names of the settings that differ; software versions and times may."""
        free = {"versions", "created"}
        names = (f.name for f in fields(self) if f.name not in free)
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True)
class QuestionRecord:
    """One question and its k sampled completions.

    Args:
        id: Unique name of the question.
        domain: Field of science.
        answer: The right answer.
        prompt: The prompt as text, as the model read it.
        completions: The k samples.
        extracted: The answer found in each sample, None where there is none.
        rewards: Score of each sample in [0, 1].
        lengths: Length of each sample in tokens.
        finished: Whether each sample ended by itself, not by the token limit.
        level: Difficulty, None where the questions have none.
        isomer_id: The set of logical isomers that it belongs to, None for other questions.
        test: Which of several tests asks it, None where there is one only.
    """

    id: str
    domain: str
    answer: str
    prompt: str
    completions: tuple[str, ...]
    extracted: tuple[str | None, ...]
    rewards: tuple[float, ...]
    lengths: tuple[int, ...]
    finished: tuple[bool, ...]
    level: int | None = None
    isomer_id: str | None = None
    test: str | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(getattr(self, name)) for name in _PER_SAMPLE}
        if len(set(sizes.values())) != 1 or not self.completions:
            raise ValueError(f"expected one or more samples in equal numbers, found {sizes}")

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Self:
        """Raises: KeyError, TypeError or ValueError if the object is not a question."""
        known = {f.name: item[f.name] for f in fields(cls) if f.name in item}
        return cls(**known | {name: tuple(item[name]) for name in _PER_SAMPLE})


_PER_SAMPLE = ("completions", "extracted", "rewards", "lengths", "finished")


@dataclass(frozen=True)
class Evaluation:
    """A file's content.

    Args:
        header: What was run.
        questions: The questions in the order of the file.
        notes: What a reader should know, e.g. a half-written last line that was left out.
        size: Bytes of the file that hold complete lines.
    """

    header: Header
    questions: tuple[QuestionRecord, ...]
    notes: tuple[str, ...] = ()
    size: int = 0


def read_records(path: str | Path) -> Evaluation:
    """Read an evaluation file.

    A last line that an interruption cut is left out and reported in `Evaluation.notes`.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: another format or version, a damaged line, a question twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected an evaluation file at {path}, found none")
    lines = path.read_bytes().split(b"\n")
    # A complete file ends with a line break, so that what follows the last one is empty.
    complete, rest = lines[:-1], lines[-1]
    if not complete:
        raise RecordError(f"{path}: expected a header in the first line, found no complete line")
    header = _parse_header(path, complete[0])
    questions: dict[str, QuestionRecord] = {}
    for number, line in enumerate(complete[1:], start=2):
        question = _parse_question(path, number, line)
        if question.id in questions:
            raise RecordError(f"{path}:{number}: question {question.id!r} is there twice")
        questions[question.id] = question
    notes = (f"{path}:{len(lines)}: left out, the line is half-written",) if rest else ()
    return Evaluation(header, tuple(questions.values()), notes, sum(len(x) + 1 for x in complete))


def _parse_header(path: Path, line: bytes) -> Header:
    item = _parse_object(path, 1, line)
    if item.pop("format", None) != FORMAT:
        raise RecordError(f"{path}:1: expected a header with format {FORMAT!r}, found another file")
    if (version := item.pop("version", None)) != VERSION:
        raise RecordError(
            f"{path}:1: expected format version {VERSION}, found {version!r}; "
            "read it with the Poise that wrote it, or evaluate again"
        )
    try:
        return Header(**item)
    except TypeError as error:
        raise RecordError(f"{path}:1: damaged header: {error}") from error


def _parse_question(path: Path, number: int, line: bytes) -> QuestionRecord:
    try:
        return QuestionRecord.from_json(_parse_object(path, number, line))
    except KeyError as error:
        raise RecordError(f"{path}:{number}: damaged question: no {error}") from error
    except (TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}:{number}: damaged question: {error}") from error


def _parse_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{path}:{number}: expected a JSON object, found {error}") from error
    if not isinstance(item, dict):
        raise RecordError(f"{path}:{number}: expected a JSON object, found {type(item).__name__}")
    return item


class RecordWriter:
    """Appends questions to an evaluation file, new or interrupted.

    Args:
        path: The file; its folder is made where it is missing.
        header: What is run now.

    Raises:
        RecordError: the file exists and was made with other settings, or is damaged.
    """

    def __init__(self, path: str | Path, header: Header) -> None:
        self.path = Path(path)
        self.done: dict[str, QuestionRecord] = {}
        if self.path.is_file() and self.path.stat().st_size:
            self._continue(header)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append([{"format": FORMAT, "version": VERSION, **asdict(header)}])

    def _continue(self, header: Header) -> None:
        found = read_records(self.path)
        if conflicts := header.conflicts(found.header):
            was = {name: getattr(found.header, name) for name in conflicts}
            now = {name: getattr(header, name) for name in conflicts}
            raise RecordError(
                f"{self.path}: expected an evaluation with {now}, found one with {was}; "
                "choose another output folder, or overwrite it (--overwrite)"
            )
        self.done = {question.id: question for question in found.questions}
        if found.size < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(found.size)

    def write(self, questions: list[QuestionRecord]) -> None:
        """Append questions in one go; they are on disk when this returns."""
        if questions:
            self._append([asdict(question) for question in questions])
        self.done.update((question.id, question) for question in questions)

    def _append(self, items: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)
