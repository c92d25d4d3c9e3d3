"""Prompts as a model reads them: no end behind a text, no turn opened by what is put into one."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

# A template may open the tag in the prompt, and a completion then only closes it.
_REASONING = re.compile(r"\A(?:(?!<think>).)*?</think>|<think>.*?</think>", re.DOTALL)


def appends_end(processing_class: Any, ends: Collection[int]) -> bool:
    """Whether a tokenizer puts an end behind every text, as with `add_eos_token`.

    Args:
        processing_class: a tokenizer, or a processor that has one.
        ends: token ids that end a text.
    """
    return processing_class(text=["a"])["input_ids"][0][-1] in ends


def strip_reasoning(text: str) -> str:
    """A completion without its `<think>...</think>`, also where the prompt holds the first tag."""
    return _REASONING.sub("", text).strip()


def control_tokens(tokenizer: Any, template_ids: Collection[int]) -> list[str]:
    """What a text must not hold: special tokens, and added ones that a chat template writes.

    Args:
        tokenizer: its added tokens that are not special may be turns, words or runs of spaces.
        template_ids: a conversation without a text of its own, which tells them apart.
    """
    added = tokenizer.added_tokens_decoder
    found = {token.content for key, token in added.items() if token.special or key in template_ids}
    found = {token for token in found | set(tokenizer.all_special_tokens) if token.strip()}
    return sorted(found, key=len, reverse=True)


def as_plain_text(text: str, tokens: Collection[str]) -> str:
    """A text in which none of the tokens occurs: a space comes behind the first character of each.

    What no tokenizer can encode (half a surrogate pair, as in a program's output) becomes `?`.
    """
    text = text.encode(errors="replace").decode()
    found = "|".join(map(re.escape, tokens))
    return re.sub(found, _broken, text) if found else text


def _broken(token: re.Match[str]) -> str:
    return f"{token[0][0]} {token[0][1:]}" if len(token[0]) > 1 else " "


@dataclass
class TeacherPrompt:
    """A question, and the texts that the teacher is shown beside it."""

    question: Any
    demonstration: str | None = None
    feedback: str | None = None

    @property
    def is_shown(self) -> bool:
        """Whether there is anything beside the question."""
        return self.demonstration is not None or self.feedback is not None

    @property
    def length(self) -> int:
        """Characters of the longer text."""
        return max(len(self.demonstration or ""), len(self.feedback or ""))

    def shortened(self, length: int) -> TeacherPrompt:
        """At most `length` characters of each text, its last; of 0, the question alone."""
        if length == 0:
            return TeacherPrompt(self.question)
        texts = (self.demonstration, self.feedback)
        return TeacherPrompt(self.question, *(_last_part(text, length) for text in texts))


def _last_part(text: str | None, length: int) -> str | None:
    """At most `length` characters, with dots where something is left out."""
    if text is None or len(text) <= length:
        return text
    dots = "..." if length > len("...") else ""
    return dots + text[len(text) - length + len(dots) :]


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number below `limit` that fits, by halving; 0 if none does."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
