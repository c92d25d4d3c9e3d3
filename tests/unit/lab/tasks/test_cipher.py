"""The toy task of a cipher: its problems, its split, its marks, and what a model can read."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.tasks import cipher
from poise.demo.tiny_model import make_tokenizer

ANSWER = "1 2 3 4 5 6"


@pytest.fixture
def lessons() -> cipher._Lessons:
    words = [*cipher.LETTERS, *cipher.DIGITS, *"WMQ=.-"]
    return cipher._Lessons(make_tokenizer(words), 1)


def test_training_and_tests_have_no_prompt_in_common() -> None:
    train = {row["prompt"] for row in cipher.problems(800, 1, "train")}
    test = {row["prompt"] for row in cipher.problems(200, 1, "test")}
    assert len(train) == 800 and len(test) == 200
    assert not train & test
    assert not train & {row["prompt"] for row in cipher.problems(200, 2, "test")}


def test_an_answer_is_by_the_seeds_key_of_each_place() -> None:
    key = cipher.key(1)
    assert key == cipher.key(1) != cipher.key(2)
    assert len({tuple(of.items()) for of in key}) == cipher.LENGTH
    for row in cipher.problems(50, 1, "test"):
        letters = row["prompt"].split()[1:-1]
        assert len(set(letters)) == cipher.LENGTH
        assert row["answer"].split() == [key[i][letter] for i, letter in enumerate(letters)]


@pytest.mark.parametrize(
    ("attempt", "reward", "text", "share"),
    [
        ("1 2 3 4 5 6", 1.0, None, 1.0),
        ("1 2 9 4 5 0", 0.0, "W 1 2 9 4 5 0 M . . 3 . . 6", 4 / 6),
        ("1 2", 0.0, "W 1 2 - - - - M . . 3 4 5 6", 2 / 6),
        ("", 0.0, "W - - - - - - M 1 2 3 4 5 6", 0.0),
        ("a W . 4 5 6", 0.0, "W - - - 4 5 6 M 1 2 3 . . .", 3 / 6),
        ("1 2 3 4 5 6 6", 0.0, "W 1 2 3 4 5 6 M . . . . . .", 1.0),  # its end was missing
    ],
)
def test_the_text_marks_the_attempt(
    attempt: str, reward: float, text: str | None, share: float
) -> None:
    assert cipher.reward([attempt], [ANSWER]) == [(reward, text)]
    assert cipher.share_reward([attempt], [ANSWER]) == [share]


def test_what_marks_say_is_learned_of_any_digits_and_not_of_the_key(
    lessons: cipher._Lessons,
) -> None:
    key, right, places = cipher.key(1), 0, 0
    for _ in range(1000):
        prompt, answer = lessons._read()
        _, *written = prompt.split()[: cipher.LENGTH + 1]
        marks = prompt.split()[cipher.LENGTH + 2 : 2 * cipher.LENGTH + 2]
        letters = prompt.split()[-cipher.LENGTH - 1 : -1]
        read = [w if m == cipher.RIGHT else m for w, m in zip(written, marks, strict=True)]
        assert read == answer.split()
        right += sum(d == key[i][x] for i, (d, x) in enumerate(zip(read, letters, strict=True)))
        places += cipher.LENGTH
    # Chance is 0.1, with a standard error of 0.004 over 6,000 places.
    assert right / places == pytest.approx(0.1, abs=0.02)


def test_hearsay_is_wrong_more_often_than_right(lessons: cipher._Lessons) -> None:
    key, heard = cipher.key(1), Counter[bool]()
    for _ in range(1000):
        prompt, said = lessons._heard()
        for place, (letter, digit) in enumerate(
            zip(prompt.split()[1:-1], said.split(), strict=True)
        ):
            heard[key[place][letter] == digit] += 1
    # The truth, and a tenth of what is any digit: 0.325, with a standard error of 0.006.
    any_digit = 1 - cipher.TRUTH - cipher.RUMOUR
    assert heard[True] / heard.total() == pytest.approx(cipher.TRUTH + any_digit / 10, abs=0.03)
    for place, of in enumerate(lessons._rumour):
        assert not any(of[letter] == digit for letter, digit in key[place].items())


def test_the_teachers_prompt_has_the_form_that_reading_was_learned_in(
    lessons: cipher._Lessons,
) -> None:
    prompt, answer = lessons._read()
    question = prompt[prompt.index(cipher.QUESTION) :]
    written = prompt.split()[1 : cipher.LENGTH + 1]
    text = cipher.marks(" ".join(written), answer)
    feedback = cipher.TEMPLATES["feedback_template"].format(feedback_raw=text)
    shown = cipher.TEMPLATES["reprompt_template"].format(
        solution="", feedback=feedback, prompt=question
    )
    assert shown == prompt
