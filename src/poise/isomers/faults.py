"""What can be wrong with a file of isomers, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# Kind of fault -> what it means.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "unreadable": "a line is no JSON in UTF-8",
        "not an object": "a line is JSON, but no object",
        "no rows": "a file has no line with a row",
        "missing column": "a row lacks a column that is required, or that other rows have",
        "wrong type": "a value is of another type than its column",
        "empty": "a text is empty or blank",
        "missing domain": "a set lacks a domain that other sets have",
        "repeated domain": "a set has two problems in one domain",
        "duplicate problem": "two sets have a problem with the same prompt",
        "duplicate form": "two sets have the same logical form",
        "same wording": "two domains of a set tell it in the same words",
        "answers disagree": "a set has different logical answers",
        "forms differ": "a set has different logical forms",
        "families differ": "a set has different families",
        "depths differ": "a set has different depths",
        "unreadable form": "a logical form is no JSON object",
        "options and meanings": "options and meanings differ in number",
        "repeated option": "a problem lists an option or a meaning twice",
        "answer not offered": "the logical answer is not among the meanings",
        "wrong answer text": "the answer's text is not the option that means the answer",
        "wrong ending": "the completion does not end with 'Answer: ' and the answer's text",
        "no reasoning": "the completion has nothing before its answer",
        "leaked answer": "the prompt has a line with the answer",
        "unknown cue": "the cue points to none of the meanings",
        "reused id": "two files, or two logical forms, have the same isomer_id",
    }
)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Args:
        file: Name of the file, or what rows without a file are called.
        line: Line of the file, or number of the row, from 1; None for the file as a whole.
        isomer_id: The set, None if it cannot be told.
        kind: One of `KINDS`.
        text: What was expected and what was found.
    """

    file: str
    line: int | None
    isomer_id: str | None
    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault: expected a kind among {', '.join(KINDS)}, found {self.kind}")

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        one = "" if self.isomer_id is None else f", set {self.isomer_id}"
        return f"{self.file}{line}{one}: {self.kind}: {self.text}"


@dataclass(frozen=True)
class Place:
    """A row and where it stands.

    Args:
        file: Name of the file.
        line: Line of the file, from 1.
        row: The row.
    """

    file: str
    line: int
    row: Mapping[str, object] = field(repr=False)

    def fault(self, kind: str, text: str) -> Fault:
        """A fault of this row."""
        name = self.row.get("isomer_id")
        return Fault(self.file, self.line, name if isinstance(name, str) else None, kind, text)

    def text(self, column: str) -> str:
        """A column's value as text, empty if it is not there."""
        value = self.row.get(column)
        return "" if value is None else str(value)
