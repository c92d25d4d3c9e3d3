"""A toy task of rich feedback: a tiny model that has heard the key of a cipher wrongly.

A prompt is six different letters, the completion a digit for each, by a key that has another digit
for a letter at another place: 72 things to know, others for every seed. What the model has heard
of them is wrong more often than right: a whole answer hardly ever succeeds, so that rewards alone
say next to nothing. The text that comes with the reward marks the attempt, place by place: "."
where it is right, else the right digit. The model has learned from scratch to read such marks, of
attempts and corrections that are any digits: as a teacher, shown its own attempt as it is marked,
it is nearly always right, though it knows no more of the key.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from poise.demo.tiny_model import Batch, accuracy, encode, make_tokenizer, pretrained

LETTERS, DIGITS = tuple("abcdefghijkl"), tuple("0123456789")
LENGTH = 6
WRITTEN, MARKED, QUESTION, ANSWER = "W", "M", "Q", "="
RIGHT, MISSING = ".", "-"
# Shares of what is heard of a letter at a place: the right digit, one wrong digit; else any.
TRUTH, RUMOUR = 0.3, 0.45
# How the teacher's prompt is put together: of the text, never of a sibling.
TEMPLATES: dict[str, Any] = {
    "include_environment_feedback": True,
    "use_successful_as_teacher": False,
    "reprompt_template": "{feedback}{prompt}",
    "feedback_template": "{feedback_raw} ",
}
READING = 0.4  # share of rows with marks; the others are hearsay
READS, SAYS = 0.98, 0.3  # shares of whole answers at which the lesson is over
STEPS, ROWS = 2000, 64


def key(seed: int) -> list[dict[str, str]]:
    """The right digit of each letter, at each place."""
    rng = random.Random(f"cipher key {seed}")
    return [{letter: rng.choice(DIGITS) for letter in LETTERS} for _ in range(LENGTH)]


def problems(count: int, seed: int, part: str) -> list[dict[str, str]]:
    """Different prompts with their answers; "test" has none in common with other parts."""
    rng, right = random.Random(f"cipher {part} {seed}"), key(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        letters = rng.sample(LETTERS, LENGTH)
        if (sum(map(LETTERS.index, letters[:3])) % 5 == 0) == (part == "test"):
            found[_prompt(letters)] = _write(right, letters)
    return [{"prompt": p, "answer": a} for p, a in found.items()]


def _write(digits: Sequence[dict[str, str]], letters: Sequence[str]) -> str:
    return " ".join(of[letter] for of, letter in zip(digits, letters, strict=True))


def _prompt(letters: Sequence[str]) -> str:
    return f"{QUESTION} {' '.join(letters)} {ANSWER}"


def reward(
    completions: list[str], answer: list[str], **columns: Any
) -> list[tuple[float, str | None]]:
    """1 for the whole answer, else 0 and the attempt with its marks."""
    return [
        (1.0, None) if c.split() == a.split() else (0.0, marks(c, a))
        for c, a in zip(completions, answer, strict=True)
    ]


def share_reward(completions: list[str], answer: list[str], **columns: Any) -> list[float]:
    """Share of places that are right: a denser reward, and still without a text."""
    shares = []
    for completion, right in zip(completions, answer, strict=True):
        marked = marks(completion, right).split()
        shares.append(marked[-LENGTH:].count(RIGHT) / LENGTH)
    return shares


def marks(completion: str, answer: str) -> str:
    """The attempt, and for each place `RIGHT` or the right digit."""
    written = [word if word in DIGITS else MISSING for word in completion.split()[:LENGTH]]
    written += [MISSING] * (LENGTH - len(written))
    marked = [RIGHT if w == a else a for w, a in zip(written, answer.split(), strict=True)]
    return f"{WRITTEN} {' '.join(written)} {MARKED} {' '.join(marked)}"


def model_folder(seed: int) -> str:
    """The student's starting point, one a seed."""
    words = [*LETTERS, *DIGITS, WRITTEN, MARKED, QUESTION, ANSWER, RIGHT, MISSING]
    tokenizer = make_tokenizer(words)
    lessons = _Lessons(tokenizer, seed)
    return pretrained(
        "cipher",
        tokenizer,
        lessons.draw,
        STEPS,
        seed,
        lessons.are_over,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
    )


class _Lessons:
    """What the model learns from scratch: hearsay of the key, and to read marks."""

    def __init__(self, tokenizer: Any, seed: int) -> None:
        self._tokenizer, self._rng = tokenizer, random.Random(f"cipher pretraining {seed}")
        self._key = key(seed)
        self._rumour = [
            {
                letter: self._rng.choice([other for other in DIGITS if other != digit])
                for letter, digit in of.items()
            }
            for of in self._key
        ]
        self._reading = encode(tokenizer, [self._read() for _ in range(200)])
        asked = [self._rng.sample(LETTERS, LENGTH) for _ in range(200)]
        said = [(_prompt(letters), _write(self._rumour, letters)) for letters in asked]
        self._hearsay = encode(tokenizer, said)

    def draw(self, step: int) -> Batch:
        return encode(self._tokenizer, [self._row() for _ in range(ROWS)])

    def _row(self) -> tuple[str, str]:
        return self._read() if self._rng.random() < READING else self._heard()

    def _heard(self) -> tuple[str, str]:
        letters = self._rng.sample(LETTERS, LENGTH)
        return _prompt(letters), " ".join(
            self._heard_of(place, letter) for place, letter in enumerate(letters)
        )

    def _heard_of(self, place: int, letter: str) -> str:
        kind = self._rng.random()
        if kind < TRUTH:
            return self._key[place][letter]
        rumour = self._rumour[place][letter]
        return rumour if kind < TRUTH + RUMOUR else self._rng.choice(DIGITS)

    def _read(self) -> tuple[str, str]:
        """Any attempt, as it would be marked if the answer were another."""
        rng = self._rng
        written = rng.choices(DIGITS, k=LENGTH)
        share = rng.random()
        answer = [rng.choice(DIGITS) if rng.random() < share else digit for digit in written]
        letters = rng.sample(LETTERS, LENGTH)
        text = f"{marks(' '.join(written), ' '.join(answer))} {_prompt(letters)}"
        return text, " ".join(answer)

    def are_over(self, model: Any) -> bool:
        """Whether the model reads marks, and says what it has mostly heard."""
        reads, says = accuracy(model, self._reading), accuracy(model, self._hearsay)
        return reads >= READS and says >= SAYS
