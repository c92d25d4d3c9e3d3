"""What is finished, one JSON line per problem and domain, so that a killed build goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from ...rows import json_line

FORMAT = "poise-isomer-journal"
VERSION = 1


@dataclass(frozen=True)
class Outcome:
    """What came of the problem `id` in one domain.

    `attempts` counts replies; it is 0 for a source that is taken as it is. A version that is not
    kept has a reason and the teacher's last reply, one that is kept has all else.
    """

    id: str
    domain: str
    kept: bool
    attempts: int
    prompt: str = ""
    completion: str = ""
    answer_text: str = ""
    reason: str = ""
    reply: str = ""


class Journal:
    """The outcomes on disk, and those that are added.

    A last line that was cut by a kill is dropped. A journal without outcomes is begun anew.

    Args:
        path: The file, made with its folder if it is not there.
        settings: What shapes the outcomes, as plain JSON values.

    Raises:
        ValueError: the journal was begun with other settings (they are named), is of another
            format, or a line is damaged.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        size = self._read(settings) if path.is_file() else 0
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.outcomes:
            header = {"format": FORMAT, "version": VERSION, "settings": dict(settings)}
            path.write_text(json_line(header), encoding="utf-8")
        else:
            os.truncate(path, size)
        self._file: TextIO = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, outcome: Outcome) -> None:
        """Add an outcome; it is on disk when this returns."""
        self._file.write(json_line(asdict(outcome)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.outcomes[outcome.id, outcome.domain] = outcome

    def _read(self, settings: Mapping[str, Any]) -> int:
        """Fill `outcomes`; returns the bytes of the complete lines."""
        content = self.path.read_bytes()
        size = content.rfind(b"\n") + 1
        first, *rest = content[:size].splitlines() or [b""]
        if not rest:
            return 0  # nothing but, at most, a header
        self._check_header(first, settings)
        for number, line in enumerate(rest, start=2):
            try:
                outcome = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                raise ValueError(
                    f"{self.path}, line {number}: expected an outcome, found unreadable text; "
                    "remove the line, whose work is then done again, or start anew (--overwrite)"
                ) from None
            self.outcomes.setdefault((outcome.id, outcome.domain), outcome)
        return size

    def _check_header(self, line: bytes, settings: Mapping[str, Any]) -> None:
        try:
            header = json.loads(line)
            found = header["settings"] if header["format"] == FORMAT else None
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, dict) or header.get("version") != VERSION:
            raise ValueError(
                f"{self.path}: expected the journal of a build in its version {VERSION}, found "
                "another file; give another --output, or start anew (--overwrite)"
            )
        # As JSON, which knows no tuples.
        wanted = json.loads(json.dumps(dict(settings)))
        other = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        if other:
            shown = ", ".join(f"{n} {found.get(n)!r}, now {wanted.get(n)!r}" for n in other)
            raise ValueError(
                f"{self.path}: the build was begun with other settings ({shown}); give the same, "
                "another --output, or start anew (--overwrite)"
            )
