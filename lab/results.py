"""The results of an experiment: one JSON line a run.

New lines are appended to `results.jsonl`, in plain text: an append survives a kill, and a change
can be read in a diff. `Results.compress` moves the lines of a finished experiment into
`results.jsonl.xz`.
"""

from __future__ import annotations

import json
import lzma
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FILE, COMPRESSED = "results.jsonl", "results.jsonl.xz"
_LOCKS = ".locks"
_NEEDED = ("key", "config", "figures")

Record = Mapping[str, Any]


class Results:
    """The result lines of a folder, shared by any number of processes.

    Whoever works on a run holds the lock of its key; whoever writes, that of the results. The
    operating system frees the locks of a process that is killed.

    Args:
        folder: Of the experiment.
    """

    def __init__(self, folder: Path) -> None:
        self.path, self.compressed = folder / FILE, folder / COMPRESSED
        self._locks = folder / _LOCKS

    def read(self) -> tuple[dict[str, Record], list[int]]:
        """Lines by key, and the numbers of plain lines that a kill has cut off.

        The first line of a key counts; plain lines come before compressed ones.
        """
        # In this order: lines that `compress` moves meanwhile are found in the second place.
        plain = self.path.read_bytes() if self.path.is_file() else b""
        packed = lzma.decompress(self.compressed.read_bytes()) if self.compressed.is_file() else b""
        records: dict[str, Record] = {}
        damaged = []
        for number, line in enumerate(plain.split(b"\n"), start=1):
            record = _parsed(line)
            if record is not None:
                records.setdefault(record["key"], record)
            elif line.strip():
                damaged.append(number)
        for line in packed.splitlines():
            record = json.loads(line)
            records.setdefault(record["key"], record)
        return records, damaged

    def append(self, record: Record) -> None:
        """Add a line; it is on disk when this returns.

        Raises:
            ValueError, TypeError: a value is no JSON, such as NaN.
        """
        line = _line(record)
        with self._lock("results", timeout=-1), self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line  # a kill has cut off the last one
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def compress(self) -> None:
        """Move all lines into the compressed file; those that a kill has cut off are dropped."""
        with self._lock("results", timeout=-1):
            if not self.path.is_file():
                return
            records, _ = self.read()
            content = b"".join(map(_line, records.values()))
            part = self.compressed.with_suffix(".part")
            with part.open("wb") as file:
                file.write(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.compressed)
            self.path.unlink()

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

    def _lock(self, name: str, timeout: float) -> FileLock:
        self._locks.mkdir(exist_ok=True)
        return FileLock(self._locks / f"{name}.lock", timeout=timeout)


def _line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _parsed(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(record, dict) and all(name in record for name in _NEEDED)
    return record if is_whole else None
