"""What an answer means whatever the words, and whether it survives a retelling.

Choice: an answer is one of four kinds, the first that fits. An option (the retelling's right
option stands in the same place), a truth word (the same), a number (the same value), or a name
that the problem mentions (the retelling must say which name stands for which, and the answer must
be the one that stands for the source's answer).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .answers import MARKER
from .quantities import CARDINALS, SCALES, numbers

Kind = Literal["option", "truth", "number", "name"]

_TRUTH = {"yes": "yes", "true": "yes", "no": "no", "false": "no"} | dict.fromkeys(
    ["unknown", "uncertain", "cannot be determined", "cannot be known"], "unknown"
)
_LETTERED = re.compile(r"(?:^|(?<=\s))\(?([A-H])[).]\s+")
_LISTED = re.compile(r"(?im)^\s*(?:options|choices)\s*:\s*(\S.*)$")
_LETTER = re.compile(r"\(?([A-H])\)?[).:]?(?:\s+(.*))?", re.DOTALL)
_EDGES = " \t\n.,;\"'“”"


@dataclass(frozen=True)
class Answer:
    """An answer's meaning.

    Args:
        kind: Which of the four it is.
        logical: It in logical terms, as in `model.Form`: ``"e1"`` (the second option, or ``"e0"``
            for a name), ``"yes"``, ``"no"``, ``"unknown"``, or a number.
        text: It in words.
    """

    kind: Kind
    logical: str
    text: str


def read_answer(prompt: str, answer: str) -> Answer | None:
    """What an answer means to its problem, None if it can be checked in none of the four ways."""
    text = answer.strip().rstrip(".").strip()
    options = read_options(prompt)
    if options:
        place = _place(options, text)
        return None if place is None else Answer("option", f"e{place}", options[place])
    if truth := _TRUTH.get(text.lower()):
        return Answer("truth", truth, text)
    values = numbers(text)
    if len(values) == 1 and _begins_with_number(text):
        return Answer("number", values[0], text)
    if text and mentions(prompt, text):
        return Answer("name", "e0", text)
    return Answer("number", values[0], text) if len(values) == 1 else None


def told_answer(completion: str, prompt: str, answer: str, answer_text: str) -> str | None:
    """The logical answer of a completion to a retold problem, None where none can be read.

    Choice: a wrong name has no logical answer that other domains know of, so that it is returned
    as it stands.

    Args:
        completion: Ends with a line ``Answer: TEXT``.
        prompt: The problem.
        answer: The right answer in logical terms.
        answer_text: It in the words of the problem's domain.
    """
    _, marked, rest = completion.rpartition(MARKER)
    text = _first_line(rest) if marked else ""
    if not _bare(text):
        return None
    if _bare(text) == _bare(_first_line(answer_text)):
        return answer
    found = read_answer(prompt, text)
    if found is None:
        return None
    return _bare(text) if found.kind == "name" else found.logical


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip()


def answer_fault(
    source: Answer, asked: str, told: str, answer: str, names: Mapping[str, str]
) -> str | None:
    """Why a retelling's answer is not the source's, None if it is.

    Args:
        source: The source's answer.
        asked: The source's prompt.
        told: The retelling's prompt.
        answer: The retelling's answer.
        names: Name in the source -> name in the retelling, for answers that are names.
    """
    if source.kind == "option" and len(read_options(told)) != (count := len(read_options(asked))):
        return f"expected {count} options in the source's order and form, found {_count(told)}"
    if source.kind == "name":
        return _name_fault(source, asked, told, answer, names)
    found = read_answer(told, answer)
    if found is None or (found.kind, found.logical) != (source.kind, source.logical):
        shown = "none that can be read" if found is None else _meaning(found)
        return f"expected the answer {_meaning(source)}, found {answer!r}, {shown}"
    return None


def _name_fault(
    source: Answer, asked: str, told: str, answer: str, names: Mapping[str, str]
) -> str | None:
    told_by = {_bare(old): _bare(new) for old, new in names.items()}
    if told_by.get(_bare(source.text)) != _bare(answer):
        return (
            f"expected `names` to map {source.text!r}, the source's answer, to the new answer "
            f"{answer!r}, found {dict(names)}"
        )
    if len(set(told_by.values())) != len(told_by):
        return f"expected different names to stay different, found {dict(names)}"
    absent = [old for old in names if not mentions(asked, old)]
    absent += [new for new in names.values() if not mentions(told, new)]
    if absent:
        return f"expected names that the problems mention, found {absent[0]!r} in `names`"
    return None


def read_options(prompt: str) -> tuple[str, ...]:
    """The options that a prompt lists: ``A) ... B) ...``, or a line ``Options: ..., ...``."""
    marks: list[re.Match[str]] = []
    for mark in _LETTERED.finditer(prompt):
        if mark[1] == "A":
            marks = [mark]
        elif marks and mark[1] == chr(ord("A") + len(marks)):
            marks.append(mark)
    if len(marks) > 1:
        ends = [*(mark.start() for mark in marks[1:]), len(prompt)]
        texts = (prompt[mark.end() : end] for mark, end in zip(marks, ends, strict=True))
        # What follows the last option on lines of its own is no part of it.
        return tuple(text.strip().split("\n")[0].strip(_EDGES) for text in texts)
    if listed := _LISTED.search(prompt):
        sign = ";" if ";" in listed[1] else ","
        parts = (re.sub(r"^(?:or|and)\s+", "", part.strip()) for part in listed[1].split(sign))
        found = tuple(part.strip(_EDGES) for part in parts if part.strip(_EDGES))
        return found if len(found) > 1 else ()
    return ()


def mentions(text: str, name: str) -> bool:
    """Whether a name occurs in a text as whole words."""
    bare = re.escape(_bare(name))
    return bool(bare) and re.search(rf"(?<!\w){bare}(?!\w)", text.casefold()) is not None


def _place(options: tuple[str, ...], answer: str) -> int | None:
    """The place of the option that an answer names, by its text or its letter."""
    bare = [_bare(option) for option in options]
    if bare.count(_bare(answer)) == 1:
        return bare.index(_bare(answer))
    match = _LETTER.fullmatch(answer)
    place = ord(match[1]) - ord("A") if match else len(options)
    if match is None or place >= len(options):
        return None
    return place if match[2] is None or _bare(match[2]) == bare[place] else None


def _bare(text: str) -> str:
    return text.strip(_EDGES).casefold()


def _begins_with_number(text: str) -> bool:
    word = re.match(r"[a-z]+", text.lower())
    if word is not None:
        return word[0] in CARDINALS or word[0] in SCALES
    return re.match(r"[^\w]*\d", text) is not None


def _meaning(answer: Answer) -> str:
    if answer.kind == "option":
        return f"that is option {int(answer.logical[1:]) + 1}"
    return repr(answer.logical)


def _count(prompt: str) -> str:
    return str(len(read_options(prompt)) or "none")
