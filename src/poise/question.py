"""The one shape that every multiple-choice question has in Poise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Letter = Literal["A", "B", "C", "D"]
LETTERS: tuple[Letter, ...] = get_args(Letter)
LEVELS: tuple[int, ...] = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Question:
    """A question with four options, one of them right, and a worked solution.

    Args:
        id: Unique name of the question, options in this order included.
        domain: Field of science, e.g. ``"physics"``.
        template: Name of the template that made it.
        level: 0 (a fact to recall), 1 (one look) to 4 (several steps).
        stem: The question itself, without its options.
        options: Four different texts, in the order A, B, C, D.
        answer: Letter of the right option.
        solution: Short steps; the last line is ``Answer: <letter>``.

    Raises:
        ValueError: If the parts contradict each other.
    """

    id: str
    domain: str
    template: str
    level: int
    stem: str
    options: tuple[str, str, str, str]
    answer: Letter
    solution: str

    def __post_init__(self) -> None:
        if len(self.options) != len(LETTERS) or len(set(self.options)) != len(LETTERS):
            raise ValueError(
                f"question {self.id}: expected four different options, found {self.options}"
            )
        if self.level not in LEVELS:
            raise ValueError(
                f"question {self.id}: expected a level among {', '.join(map(str, LEVELS))}, "
                f"found {self.level!r}"
            )
        if self.answer not in LETTERS:
            raise ValueError(
                f"question {self.id}: expected an answer among {', '.join(LETTERS)}, "
                f"found {self.answer!r}"
            )
        if not self.solution.endswith(f"Answer: {self.answer}"):
            raise ValueError(
                f"question {self.id}: expected a solution that ends with 'Answer: {self.answer}', "
                f"found {self.solution[-20:]!r}"
            )

    @property
    def right_option(self) -> str:
        """The text of the right option."""
        return self.options[LETTERS.index(self.answer)]
