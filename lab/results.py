"""The results of an experiment: one JSON line a run, added, never edited."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FILE = "results.jsonl"
_LOCKS = ".locks"
_NEEDED = ("key", "config", "figures")

Record = Mapping[str, Any]


class Results:
    """`results.jsonl` of a folder, shared by any number of processes.

    Whoever works on a run holds the lock of its key, whoever adds a line that of the file. The
    operating system frees the locks of a process that is killed.

    Args:
        folder: Of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._locks = folder / _LOCKS

    def read(self) -> tuple[dict[str, Record], list[int]]:
        """Lines by key, and the numbers of lines that a kill has cut off.

        A key that stands twice counts as it stands first.
        """
        records: dict[str, Record] = {}
        damaged = []
        lines = self.path.read_bytes().split(b"\n") if self.path.is_file() else []
        for number, line in enumerate(lines, start=1):
            record = _parsed(line)
            if record is not None:
                records.setdefault(record["key"], record)
            elif line.strip():
                damaged.append(number)
        return records, damaged

    def append(self, record: Record) -> None:
        """Add a line; it is on disk when this returns.

        Raises:
            ValueError, TypeError: a value is no JSON, such as NaN.
        """
        line = json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with self._lock("results", timeout=-1), self.path.open("ab+") as file:
            if file.tell() and not self._ends_well():
                line = b"\n" + line  # a kill has cut off the last one
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether a run is ours to do: nobody has done it, and nobody else does it meanwhile."""
        lock = self._lock(key, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield key not in self.read()[0]
        finally:
            lock.release()

    def _ends_well(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _lock(self, name: str, timeout: float) -> FileLock:
        self._locks.mkdir(exist_ok=True)
        return FileLock(self._locks / f"{name}.lock", timeout=timeout)


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(record, dict) and all(name in record for name in _NEEDED)
    return record if is_whole else None
