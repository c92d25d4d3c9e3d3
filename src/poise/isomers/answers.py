"""Reads the answer of an isomer's completion: from its words back to the logical answer.

The student ends with a line ``Answer: TEXT``. TEXT names one of the problem's options in the
words of its domain; each option stands for a logical answer, the same in every domain of a set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MARKER = "Answer:"

_AROUND = " \t.,;:!?\"'`“”‘’*_()[]<>\\$"
_WORD = re.compile(r"(?:(?<![\w.])-(?=\d))?[^\W_]+(?:[.,'’/-][^\W_]+)*")
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
# Words that single nothing out among the options, as in "the said Adams".
_DECORATION = re.compile(
    "an?|the|said|aforesaid|aforementioned|this|that|these|those|it|is|its|option|answer"
)
# Around an option, these words turn it into something else, or name another one.
_REVERSING = re.compile(
    "not?|yes|nor|never|neither|none|cannot|except|but|or|and|both|without|either"
)
_MOST_AROUND = 3  # words that an answer may have beside an option


def before_answer(completion: str) -> str:
    """A completion up to and including its last ``Answer:``, where the answer is decided; a
    ValueError if it has none."""
    head, found, _ = completion.rpartition(MARKER)
    if not found:
        end = completion[-60:]
        raise ValueError(f"completion: expected a line '{MARKER} ...' at its end, found {end!r}")
    return head + found


def stated_answer(text: str) -> str | None:
    """What stands behind the last ``Answer:`` of a completion on its line; None for nothing."""
    _, found, rest = text.rpartition(MARKER)
    line = rest.split("\n", 1)[0].strip(_AROUND) if found else ""
    return line or None


def match_option(answer: str, options: Sequence[str]) -> int | None:
    """Place of the one option that an answer names, None if there is none or no single one.

    The first of these readings that fits any option decides: equal text (upper and lower case,
    and punctuation around it, do not count); equal words without decorations such as "the said";
    equal numbers, whatever the unit; an option with a few words around it, or without some of its
    own at one end.

    Choice: what names two options names none, so that a model cannot win by listing them.

    >>> match_option("The said Adams.", ["Baker", "Adams"]), match_option("17.0", ["7 mg", "17 mg"])
    (1, 1)
    """
    answer, *options = (text.casefold().replace("−", "-") for text in (answer, *options))
    for fits in (_alike(_text), _alike(_words), _alike(_number), _part_of_the_other):
        found = [place for place, option in enumerate(options) if fits(answer, option)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def logical_answer(text: str, options: Sequence[str], meanings: Sequence[str]) -> str | None:
    """The logical answer of a completion, None where none can be read.

    Raises:
        ValueError: options and their logical meanings differ in number.
    """
    if len(options) != len(meanings):
        found = f"{len(options)} options and {len(meanings)} meanings"
        raise ValueError(f"isomer: expected a meaning for each option, found {found}")
    answer = stated_answer(text)
    place = None if answer is None else match_option(answer, options)
    return None if place is None else meanings[place]


def isomer_reward(
    completions: Sequence[str],
    answer: Sequence[str],
    options: Sequence[Sequence[str]],
    meanings: Sequence[Sequence[str]],
    **columns: Any,
) -> list[float]:
    """Score each completion 1.0 if its logical answer is right, else 0.0 (TRL's signature)."""
    rows = zip(completions, answer, options, meanings, strict=True)
    return [float(logical_answer(text, o, m) == right) for text, right, o, m in rows]


def check_meanings(rows: Iterable[Mapping[str, Any]]) -> None:
    """Check before the run that each row's answer is one of its meanings, else raise ValueError."""
    for index, row in enumerate(rows):
        answer, meanings = row["answer"], row["meanings"] or ()
        if answer not in meanings:
            known = ", ".join(map(repr, meanings)) or "(none)"
            raise ValueError(
                f"row {index}: expected an answer among its meanings {known}, found {answer!r}"
            )


isomer_reward.check_rows = check_meanings  # type: ignore[attr-defined]


def _alike(read: Callable[[str], Any]) -> Callable[[str, str], bool]:
    return lambda answer, option: read(answer) == read(option) is not None


def _text(text: str) -> str:
    return " ".join(text.split()).strip(_AROUND)


def _words(text: str) -> list[str]:
    words = _WORD.findall(text)
    return [word for word in words if not _DECORATION.fullmatch(word)] or words


def _number(text: str) -> float | None:
    """The number of a text that holds one; "12 of 30" holds two."""
    found = _NUMBER.findall(text)
    return float(found[0].replace(",", "")) if len(found) == 1 else None


def _part_of_the_other(answer: str, option: str) -> bool:
    if _NUMBER.search(answer) or _NUMBER.search(option):
        return False  # equal but for words around them: that was read as a number
    short, long = sorted((_words(answer), _words(option)), key=len)
    extra = len(long) - len(short)
    if not short or not 0 < extra <= _MOST_AROUND:
        return False
    ends = ((long[:extra], long[extra:]), (long[-extra:], long[:-extra]))
    return any(rest == short and not any(map(_REVERSING.fullmatch, more)) for more, rest in ends)
