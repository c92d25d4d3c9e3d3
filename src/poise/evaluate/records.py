"""Saved evaluations: what a model answered, and what it held in mind where it answered.

Answers are versioned JSON lines: a header, then one question a line with its sampled completions.
Representations lie beside them, a safetensors file with one vector a problem and the same header in
its metadata. Whatever Poise says about a model is computed from these files, so that a number can
be checked, or computed anew, without the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT, VERSION = "poise-evaluation", 1
VECTORS_FORMAT = "poise-representations"
_PER_SAMPLE = ("completions", "extracted", "rewards", "lengths", "finished")
_FREE = ("versions", "created")  # may differ between parts of one evaluation


class RecordError(ValueError):
    """A saved file is not what was expected; the message names file and line."""


@dataclass(frozen=True)
class Header:
    """What was run."""

    model: str  # name or path
    dataset: str  # name or path of the questions
    split: str
    sampling: Mapping[str, Any]  # whatever shapes samples; of representations, layer and position
    seed: int  # of the samples
    adapter: str | None = None  # folder of the PEFT adapter
    # Fingerprint of the weight files, so that a file is never continued with a model that was
    # trained further in the meantime; None where there are none on this machine.
    weights: str | None = None
    selection: Mapping[str, Any] = field(default_factory=dict)  # limit, domains, ...
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def conflicts(self, other: Header) -> dict[str, tuple[Any, Any]]:
        """Settings that differ, of this one and of the other; software versions and times may."""
        names = [f.name for f in fields(self) if f.name not in _FREE]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def check_continues(self, path: Path, found: Header, **others: tuple[Any, Any]) -> None:
        """Check that what is in a file belongs to this evaluation.

        Raises:
            RecordError: Its header differs, or one of the `others`, pairs of now and in the file.
        """
        if pairs := self.conflicts(found) | others:
            now, was = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
            raise RecordError(
                f"{path}: expected an evaluation with {now}, found one with {was}; "
                "choose another output folder, or overwrite it (--overwrite)"
            )


@dataclass(frozen=True)
class QuestionRecord:
    """One question and its k sampled completions.

    Raises:
        ValueError: No samples, or not the same number of each.
    """

    id: str
    domain: str
    answer: str  # the right one
    prompt: str  # as the model read it
    completions: tuple[str, ...]
    extracted: tuple[str | None, ...]  # the answer found in each sample
    rewards: tuple[float, ...]  # in [0, 1]
    lengths: tuple[int, ...]  # in tokens
    finished: tuple[bool, ...]  # whether each ended by itself, not by the token limit
    level: int | None = None  # of difficulty
    isomer_id: str | None = None  # the set of logical isomers that it belongs to
    test: str | None = None  # which of several tests asks it

    def __post_init__(self) -> None:
        sizes = {name: len(getattr(self, name)) for name in _PER_SAMPLE}
        if len(set(sizes.values())) != 1 or not self.completions:
            raise ValueError(f"expected one or more samples in equal numbers, found {sizes}")


@dataclass(frozen=True)
class Evaluation:
    """A file's content."""

    header: Header
    questions: tuple[QuestionRecord, ...]  # in the order of the file
    notes: tuple[str, ...] = ()  # what a reader should know
    size: int = 0  # bytes of the file that hold complete lines


def read_records(path: str | Path) -> Evaluation:
    """Read an evaluation file; a last line that an interruption cut is left out, with a note.

    Raises:
        FileNotFoundError: There is no such file.
        RecordError: Another format or version, a damaged line, a question twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected an evaluation file at {path}, found none")
    lines, notes, size = read_lines(path)
    if not lines:
        raise RecordError(f"{path}: expected a header in the first line, found no complete line")
    _check_format(f"{path}:1", lines[0], FORMAT)
    with _named(f"{path}:1: damaged header"):
        header = Header(**{k: v for k, v in lines[0].items() if k not in ("format", "version")})
    known = [f.name for f in fields(QuestionRecord)]
    questions: dict[str, QuestionRecord] = {}
    for number, line in enumerate(lines[1:], start=2):
        with _named(f"{path}:{number}: damaged question"):
            samples = {name: tuple(line[name]) for name in _PER_SAMPLE}
            settings = {name: line[name] for name in known if name in line}
            question = QuestionRecord(**settings | samples)
        if question.id in questions:
            raise RecordError(f"{path}:{number}: question {question.id!r} is there twice")
        questions[question.id] = question
    return Evaluation(header, tuple(questions.values()), notes, size)


def read_continued(path: Path, header: Header) -> Evaluation | None:
    """What is in a file that is to go on under this header; None where nothing is.

    Raises:
        RecordError: It was made with other settings; and as `read_records`.
    """
    if not path.is_file() or not path.stat().st_size:
        return None
    found = read_records(path)
    header.check_continues(path, found.header)
    return found


def _check_format(where: str, found: Mapping[str, Any], expected: str) -> None:
    kind, version = found.get("format"), found.get("version")
    if kind != expected or str(version) != str(VERSION):
        raise RecordError(
            f"{where}: expected format {expected!r}, version {VERSION}, found {kind!r}, version "
            f"{version!r}; read it with the Poise that wrote it, or evaluate again"
        )


def read_lines(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...], int]:
    """JSON objects of a file, one a complete line; a note if the last one is cut; bytes read.

    Raises:
        RecordError: A complete line is no JSON object.
    """
    # A complete file ends with a line break, so that what follows the last one is empty.
    *lines, rest = path.read_bytes().split(b"\n")
    found = [read_object(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
    notes = (f"{path}:{len(lines) + 1}: left out, the line is half-written",) if rest else ()
    return found, notes, sum(len(line) + 1 for line in lines)


def read_object(text: bytes, where: str) -> dict[str, Any]:
    """A JSON object. Raises: RecordError, for anything else."""
    try:
        item = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{where}: expected a JSON object, found {error}") from error
    if not isinstance(item, dict):
        raise RecordError(f"{where}: expected a JSON object, found {type(item).__name__}")
    return item


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever damage is met, it becomes a `RecordError` that says where."""
    try:
        yield
    except RecordError:
        raise
    except KeyError as error:
        raise RecordError(f"{what}: no {error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise RecordError(f"{what}: {error}") from error


class RecordWriter:
    """Appends questions to an evaluation file, new or interrupted; makes its folder.

    Raises:
        RecordError: The file exists and was made with other settings, or is damaged.
    """

    def __init__(self, path: str | Path, header: Header) -> None:
        self.path = Path(path)
        found = read_continued(self.path, header)
        self.done = {question.id: question for question in found.questions} if found else {}
        if found is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._append([{"format": FORMAT, "version": VERSION, **asdict(header)}])
        elif found.size < self.path.stat().st_size:
            os.truncate(self.path, found.size)

    def write(self, questions: list[QuestionRecord]) -> None:
        """Append questions in one go; they are on disk when this returns."""
        self._append([asdict(question) for question in questions])
        self.done.update((question.id, question) for question in questions)

    def _append(self, items: list[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


@dataclass(frozen=True)
class Place:
    """Which problem a vector belongs to."""

    id: str
    isomer_id: str
    domain: str
    test: str | None = None


@dataclass(frozen=True, eq=False)
class Representations:
    """Vectors of a model, one a problem.

    Raises:
        ValueError: Places and rows differ in number, or a value is not finite.
    """

    header: Header
    places: tuple[Place, ...]  # in the order of the rows
    vectors: NDArray[np.float32]  # shape (problems, width)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.places):
            raise ValueError(
                f"representations: expected one row for each of {len(self.places)} problems, "
                f"found shape {self.vectors.shape}"
            )
        if not np.isfinite(self.vectors).all():
            raise ValueError("representations: expected finite values, found others")

    def of_test(self, test: str) -> Representations:
        """The part that belongs to one test."""
        rows = [row for row, place in enumerate(self.places) if place.test == test]
        places = tuple(self.places[row] for row in rows)
        return replace(self, places=places, vectors=self.vectors[rows])


def beside(records: Path) -> Path:
    """Where the representations of an evaluation lie: ``after.jsonl`` has them next to it."""
    return records.with_name(records.stem + ".representations.safetensors")


def write_representations(path: str | Path, found: Representations) -> Path:
    """Write the file in one step, so that an interruption leaves none that is half-written."""
    path = Path(path)
    metadata = {
        "format": VECTORS_FORMAT,
        "version": str(VERSION),
        "header": json.dumps(asdict(found.header)),
        "places": json.dumps([asdict(place) for place in found.places]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".tmp")
    save_file({"vectors": np.ascontiguousarray(found.vectors)}, half, metadata)
    os.replace(half, path)
    return path


def read_representations(path: str | Path) -> Representations:
    """Read what `write_representations` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        RecordError: Another format or version, or a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected representations at {path}, found none")
    with _named(f"{path}: damaged representations"):
        with safe_open(path, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            _check_format(str(path), metadata, VECTORS_FORMAT)
            vectors = file.get_tensor("vectors")
        header = Header(**json.loads(metadata["header"]))
        places = tuple(Place(**item) for item in json.loads(metadata["places"]))
        return Representations(header, places, vectors)
