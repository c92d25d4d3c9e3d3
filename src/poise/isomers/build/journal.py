"""What is finished, one JSON line per problem and domain, so that a killed build goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...rows import json_line

_HEADER = {"format": "poise-isomer-journal", "version": 1}


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
    """The outcomes on disk, by id and domain, and those that are added.

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
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) > 1:
            self._read(whole, settings)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = [json_line({**_HEADER, "settings": settings}).encode()]
            path.write_bytes(whole[0])
        os.truncate(path, sum(map(len, whole)))

    def write(self, outcome: Outcome) -> None:
        """Add an outcome; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json_line(asdict(outcome)))
            file.flush()
            os.fsync(file.fileno())
        self.outcomes[outcome.id, outcome.domain] = outcome

    def _read(self, lines: list[bytes], settings: Mapping[str, Any]) -> None:
        try:
            header = dict(json.loads(lines[0]))
            found = dict(header.pop("settings"))
        except (ValueError, KeyError, TypeError):
            header, found = {}, {}
        if header != _HEADER:
            raise ValueError(
                f"{self.path}: expected the journal of a build in its version "
                f"{_HEADER['version']}, found another file; give another --output, or start anew "
                "(--overwrite)"
            )
        other = [name for name in {**settings, **found} if settings.get(name) != found.get(name)]
        if other:
            shown = ", ".join(f"{n} {found.get(n)!r}, now {settings.get(n)!r}" for n in other)
            raise ValueError(
                f"{self.path}: the build was begun with other settings ({shown}); give the same, "
                "another --output, or start anew (--overwrite)"
            )
        for number, line in enumerate(lines[1:], start=2):
            try:
                outcome = Outcome(**json.loads(line))
            except (ValueError, TypeError):
                raise ValueError(
                    f"{self.path}, line {number}: expected an outcome, found unreadable text; "
                    "remove the line, whose work is then done again, or start anew (--overwrite)"
                ) from None
            self.outcomes.setdefault((outcome.id, outcome.domain), outcome)
