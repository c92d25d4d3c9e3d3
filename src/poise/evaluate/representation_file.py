"""Saved representations: one vector a problem, beside the records of the same evaluation.

A safetensors file with one float32 matrix; its metadata hold the header, as that of records, and
which problem each row belongs to. Whatever Poise says about representations is computed from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .records import Header, RecordError

FORMAT = "poise-representations"
VERSION = 1
SUFFIX = ".representations.safetensors"


@dataclass(frozen=True)
class Place:
    """Which problem a vector belongs to.

    Args:
        id: Unique name of the problem.
        isomer_id: Its isomer set.
        domain: In whose words it is told.
        test: Which of several tests asks it, None where there is one only.
    """

    id: str
    isomer_id: str
    domain: str
    test: str | None = None


@dataclass(frozen=True, eq=False)
class Representations:
    """Vectors of a model, one a problem.

    Args:
        header: What was run; ``sampling`` says layer and position.
        places: The problems, in the order of the rows.
        vectors: Shape (problems, width), float32.

    Raises:
        ValueError: places and rows differ in number, or a value is not finite.
    """

    header: Header
    places: tuple[Place, ...]
    vectors: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.places):
            raise ValueError(
                f"representations: expected one row for each of {len(self.places)} problems, "
                f"found shape {self.vectors.shape}"
            )
        if not np.isfinite(self.vectors).all():
            raise ValueError("representations: expected finite values, found others")

    @property
    def tests(self) -> list[str]:
        """Names of the tests, in the order of the file."""
        return list(dict.fromkeys(p.test for p in self.places if p.test is not None))

    def of_test(self, test: str) -> Representations:
        """The part that belongs to one test."""
        rows = [row for row, place in enumerate(self.places) if place.test == test]
        return replace(
            self, places=tuple(self.places[row] for row in rows), vectors=self.vectors[rows]
        )


def beside(records: Path) -> Path:
    """Where the representations of an evaluation lie: ``after.jsonl`` has them next to it."""
    return records.with_name(records.stem + SUFFIX)


def write_representations(path: str | Path, found: Representations) -> Path:
    """Write the file in one step, so that an interruption leaves none that is half-written."""
    path = Path(path)
    metadata = {
        "format": FORMAT,
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
    """Read a file of `write_representations`.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: another format or version, or a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected representations at {path}, found none")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            _check_format(path, metadata)
            vectors = file.get_tensor("vectors")
        header = Header(**json.loads(metadata["header"]))
        places = tuple(_place(item) for item in json.loads(metadata["places"]))
        return Representations(header, places, vectors)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(f"{path}: damaged representations: {error}") from error


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata.get("format"), metadata.get("version")
    if found != (FORMAT, str(VERSION)):
        raise RecordError(
            f"{path}: expected format {FORMAT!r}, version {VERSION}, found {found[0]!r}, version "
            f"{found[1]!r}; evaluate again with this Poise"
        )


def _place(item: Mapping[str, Any]) -> Place:
    return Place(**{field.name: item[field.name] for field in fields(Place)})


def kept_representations(
    path: Path, header: Header, places: Sequence[Place]
) -> Representations | None:
    """What is at `path`, if it is of these problems and this header; None where nothing is.

    Raises:
        RecordError: it was made with other settings or of other problems.
    """
    if not path.is_file():
        return None
    found = read_representations(path)
    names = header.conflicts(found.header)
    now, was = ({name: getattr(h, name) for name in names} for h in (header, found.header))
    if found.places != tuple(places):
        now["problems"], was["problems"] = len(places), "others"
    if now:
        raise RecordError(
            f"{path}: expected representations with {now}, found some with {was}; "
            "choose another output folder, or overwrite it (--overwrite)"
        )
    return found
