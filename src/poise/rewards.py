"""Rewards for multiple-choice answers, exact and free of any model.

The letter is read by the first of three rules that finds one:

1. ``<answer>B</answer>``: the last pair of tags decides.
2. A statement: ``Answer: B``, ``the answer is (B)``, ``\\boxed{B}``, ``(B)`` at the very end.
3. The letter at the start of the text or of a line: ``B``, ``(B)``, ``B) 12 kg``.

If a rule finds different letters, the answer is ambiguous and there is none. Every letter is read
alike: a rule that trusted ``A`` less, because it is also an article, would teach a model to avoid
it.

Where the options are known and no letter is found, the first line of the text may be an option
word for word (``" neon"``); a part of an option, or an option within a sentence, is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LETTERS = ("A", "B", "C", "D")

Completion = str | list[dict[str, Any]]
Feedback = tuple[float, str | None]

# Prompts differ in the form of the answer, so the feedback names none.
NO_ANSWER = "No option was named; answer in the form that the question asks for."

_TAGS = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
# In tags: the letter, and perhaps the text of its option, but no second letter.
_TAGGED = re.compile(
    r"\s*(?i:option\s+)?[*\[(]*([A-Da-d])(?:[*\])]*\s*|[.:)](?!.*\b[A-D]\b).*)", re.DOTALL
)
# Not "A mass of ..." nor "C-14": neither a word in small letters nor a hyphen may follow.
_LETTER = r"[*\[(]*([A-D])(?![A-Za-z0-9'+-])(?![ \t]+[a-z])"
_STATEMENT = re.compile(
    r"(?i:\b(?:answer|(?:correct|right) (?:option|choice))(?:\s+is)?\s*[:=]?\s*(?:option\s+)?)"
    + _LETTER
)
_BOXED = re.compile(r"\\boxed\{([A-D])\}|\(([A-D])\)[\s.*]*$")
_LINE = re.compile(r"^[ \t]*[*\[(]*([A-D])(?:[*\])]+|[.:](?=\s|$)|[ \t]*$)", re.MULTILINE)
_QUOTES = " \t\"'`“”‘’"
# A base model goes on with further questions, which nobody asked.
_NEXT_QUESTION = re.compile(r"\n\s*(?:Question|Q)\s*\d*\s*:")


def extract_answer(text: str, options: Sequence[str] | None = None) -> str | None:
    """Read the letter that a completion answers with, or None if there is none or no single one.

    It may name one of the texts of the options. One that itself reads as a letter, as in options
    C, H, N, O, can be meant either way: where the two ways differ, there is no answer.

    >>> extract_answer("<answer>\\nB\\n</answer>"), extract_answer("A mass of 3 kg")
    ('B', None)
    >>> extract_answer(" Neon.", ["iron", "neon"]), extract_answer("neon lamps", ["iron", "neon"])
    ('B', None)
    """
    letter = _read_letter(text)
    line = _first_line(text)
    named = _named_option(line, options or ())
    if letter is None or named is None:
        return letter or named
    return letter if letter == named or _read_letter(line) is None else None


def tagged_answer(text: str) -> str | None:
    """What stands in the last pair of answer tags, or None if there is no pair."""
    tagged: list[str] = _TAGS.findall(text)
    return tagged[-1] if tagged else None


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def _named_option(line: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that a line is, in the same case if there is one."""
    for form in (_bare, lambda text: _bare(text).casefold()):
        listed = zip(LETTERS, map(form, options), strict=False)
        found = [letter for letter, option in listed if option == form(line) != ""]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _bare(text: str) -> str:
    """A text without the quotes around it and the full stop behind it."""
    return text.strip(_QUOTES).removesuffix(".").strip(_QUOTES)


def _read_letter(text: str) -> str | None:
    tagged = tagged_answer(text)
    if tagged is not None:
        match = _TAGGED.fullmatch(tagged)
        return match[1].upper() if match else None
    text = _NEXT_QUESTION.split(text, maxsplit=1)[0]
    found = {match[1] for match in _STATEMENT.finditer(text)}
    found |= {match[1] or match[2] for match in _BOXED.finditer(text)}
    found = found or {match[1] for match in _LINE.finditer(text)}
    return found.pop() if len(found) == 1 else None


def completion_text(completion: Completion) -> str:
    """The text of a completion: itself, or what the assistant said in it; else a TypeError."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list) and all(isinstance(turn, dict) for turn in completion):
        said = [turn for turn in completion if turn.get("role", "assistant") == "assistant"]
        return "\n".join(str(turn.get("content") or "") for turn in said)
    found = type(completion).__name__
    raise TypeError(f"completion: expected text or a list of chat messages, found {found}")


def check_rows(rows: Iterable[Mapping[str, Any]], where: str = "") -> None:
    """Check that the answer of every row of a data set is the letter of one of its options.

    A trainer calls it before the model is loaded, as the attribute ``check_rows`` of the reward
    functions below. A ValueError names the first row where it is not, after `where`.
    """
    for number, row in enumerate(rows):
        letter, options = row.get("answer"), row.get("options")
        known = LETTERS[: len(options)] if options else LETTERS
        if letter not in known:
            raise ValueError(
                f"{where}row {number}: expected an answer among {', '.join(known)}, found "
                f"{letter!r}; the column 'answer' must hold the letter of the right option"
            )


def multiple_choice_feedback_reward(
    completions: Sequence[Completion], answer: Sequence[str], **columns: Any
) -> list[Feedback]:
    """Score each completion 1.0 or 0.0 and say what is wrong with it.

    Args:
        completions: Texts, or lists of chat messages.
        answer: The right letter of each.
        **columns: The other columns of the batch; ``options``, if there, bounds the letters, and
            completions may answer with the text of an option.

    Returns:
        Pairs of reward and feedback, which is None for a right answer and never tells it.

    Raises:
        ValueError: If an answer is not a letter of its row's options (the row is named), or the
            columns differ in length.
    """
    options = columns.get("options") or [None] * len(completions)
    rows = list(zip(map(completion_text, completions), answer, options, strict=True))
    check_rows({"answer": right, "options": listed} for _, right, listed in rows)
    return [_score(*row) for row in rows]


def _score(text: str, right: str, options: Sequence[str] | None) -> Feedback:
    given = extract_answer(text, options)
    if given == right:
        return 1.0, None
    if given is None:
        return 0.0, NO_ANSWER
    by_letter = options is None or extract_answer(text) == given
    return 0.0, f"{given if by_letter else _bare(_first_line(text))} is wrong."


def multiple_choice_reward(
    completions: Sequence[Completion], answer: Sequence[str], **columns: Any
) -> list[float]:
    """Score each completion 1.0 if it gives the right letter, else 0.0 (TRL's signature).

    Arguments and errors are those of `multiple_choice_feedback_reward`.
    """
    return [reward for reward, _ in multiple_choice_feedback_reward(completions, answer, **columns)]


multiple_choice_feedback_reward.check_rows = check_rows  # type: ignore[attr-defined]
multiple_choice_reward.check_rows = check_rows  # type: ignore[attr-defined]
