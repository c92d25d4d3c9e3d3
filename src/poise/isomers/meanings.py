"""What an answer means whatever the words.

Choice: an answer is one of four kinds, the first that fits: an option, a truth word, a number, or
a name that the problem mentions.
"""

from __future__ import annotations

import re
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
    """An answer's meaning in logical terms, as in `forms.Form`, and in words.

    `logical` is ``"e1"`` (the second option, or ``"e0"`` for a name), ``"yes"``, ``"no"``,
    ``"unknown"``, or a number.
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
    begin = re.match(r"[a-z]+|\W*\d", text.lower())
    is_number = begin and (begin[0] in CARDINALS or begin[0] in SCALES or begin[0][-1].isdigit())
    if len(values) == 1 and is_number:
        return Answer("number", values[0], text)
    if text and mentions(prompt, text):
        return Answer("name", "e0", text)
    return Answer("number", values[0], text) if len(values) == 1 else None


def rewritten_answer(completion: str, prompt: str, answer: str, answer_text: str) -> str | None:
    """The logical answer of a completion to a rewritten problem, None where none can be read.

    The right answer is given in logical terms and in the words of the domain. Choice: a wrong name
    has no logical answer that other domains know of, so that it is returned as it stands.
    """
    _, marked, rest = completion.rpartition(MARKER)
    text, right = (given.split("\n", 1)[0].strip() for given in (rest, answer_text))
    if not marked or not bare(text):
        return None
    if bare(text) == bare(right):
        return answer
    found = read_answer(prompt, text)
    if found is None:
        return None
    return bare(text) if found.kind == "name" else found.logical


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
    words = re.escape(bare(name))
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text.casefold()) is not None


def _place(options: tuple[str, ...], answer: str) -> int | None:
    """The place of the option that an answer names, by its text or its letter."""
    texts = [bare(option) for option in options]
    if texts.count(bare(answer)) == 1:
        return texts.index(bare(answer))
    match = _LETTER.fullmatch(answer)
    place = ord(match[1]) - ord("A") if match else len(options)
    if match is None or place >= len(options):
        return None
    return place if match[2] is None or bare(match[2]) == texts[place] else None


def bare(text: str) -> str:
    """A text without its case and the signs around it."""
    return text.strip(_EDGES).casefold()
