"""How a question is put to a model: what the student sees, and what the teacher sees beside it.

Add a style with ``STYLES[name] = PromptStyle(...)``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..rewards import LETTERS

Prompt = str | list[dict[str, str]]

CLOSING = "Please reason step by step."
CHAT_SYSTEM = """
Given a question and four options, please select the right answer. \
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>

For the answer, only output the letter corresponding to the correct option \
(A, B, C, or D), and nothing else. Do not restate the answer text. \
For example, if the answer is "A", just output:
<answer>
A
</answer>
"""

# One worked example shows a small model the form that the answer has; it is about no science.
PLAIN_EXAMPLE = """Question: Which of these numbers is the largest?
A) 14
B) 52
C) 87
D) 33
Answer: C

"""

SHORT_EXAMPLE = """Options: April, seven, Monday, noon
Question: Which of these is a day of the week?
Answer: Monday

"""


class PromptStyle(NamedTuple):
    """How a question is put to a model.

    Args:
        prompt: (stem, options) -> text, or chat messages that end with the user's turn.
        reference: (solution's steps, letter, text of the right option) -> what the teacher
            reads, ending in the answer in the form that the student is asked for. Steps are empty
            where no solution is known.
    """

    prompt: Callable[[str, Sequence[str]], Prompt]
    reference: Callable[[str, str, str], str]


def _listed(options: Sequence[str], mark: str) -> list[str]:
    return [f"{letter}{mark} {text}" for letter, text in zip(LETTERS, options, strict=False)]


def chat_prompt(stem: str, options: Sequence[str]) -> list[dict[str, str]]:
    """System and user messages in the manner of SciKnowEval; the answer goes into tags."""
    user = "\n".join([stem, "", *_listed(options, ":"), CLOSING])
    return [{"role": "system", "content": CHAT_SYSTEM}, {"role": "user", "content": user}]


def _chat_reference(steps: str, letter: str, option: str) -> str:
    reasoning = f"<reasoning>\n{steps}\n</reasoning>\n" if steps else ""
    return f"{reasoning}<answer>\n{letter}\n</answer>"


def _plain_prompt(stem: str, options: Sequence[str]) -> str:
    """Raw text that a small base-like model continues with ``" B"``."""
    return PLAIN_EXAMPLE + "\n".join([f"Question: {stem}", *_listed(options, ")"), "Answer:"])


def _short_prompt(stem: str, options: Sequence[str]) -> str:
    """Raw text without letters, which a model continues with the text of an option.

    For models too small to bind letters to options. The question stands between the options and
    the answer, where a small model has it in view when it looks back at them.
    """
    return f"{SHORT_EXAMPLE}Options: {', '.join(options)}\nQuestion: {stem}\nAnswer:"


STYLES: dict[str, PromptStyle] = {
    "chat": PromptStyle(chat_prompt, _chat_reference),
    "plain": PromptStyle(
        _plain_prompt, lambda steps, letter, option: f"{steps}\nAnswer: {letter}".lstrip()
    ),
    # Short enough to copy; TRL's templates say what it is.
    "short": PromptStyle(_short_prompt, lambda steps, letter, option: option),
}


def get_style(name: str) -> PromptStyle:
    """A style by its name; a ValueError if there is none."""
    if name not in STYLES:
        near = difflib.get_close_matches(name, STYLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"style: expected one of {', '.join(STYLES)}, found {name!r}{hint}")
    return STYLES[name]
