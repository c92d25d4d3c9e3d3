"""What the student and the teacher see."""

from dataclasses import replace

import pytest

from poise.data.prompts import STYLES, PromptStyle, get_style, render
from poise.rewards import extract_answer, multiple_choice_reward
from tests.unit.test_question import QUESTION

COLUMNS = ["id", "domain", "level", "template", "prompt", "answer", "options", "privileged_context"]


@pytest.mark.parametrize("style", STYLES)
def test_a_row_has_the_columns_of_the_trainer(style):
    row = render(QUESTION, style)
    assert list(row) == COLUMNS
    assert row["options"] == list(QUESTION.options)
    assert (row["answer"], row["level"], row["domain"]) == ("B", 2, "physics")


def test_chat_is_a_system_and_a_user_message_with_lettered_options():
    system, user = render(QUESTION, "chat")["prompt"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert "<answer>\nA\n</answer>" in system["content"]
    assert user["content"] == (
        "How fast?\n\nA: 1 m/s\nB: 2 m/s\nC: 3 m/s\nD: 4 m/s\nPlease reason step by step."
    )


def test_plain_is_text_that_waits_for_the_letter():
    prompt = render(QUESTION, "plain")["prompt"]
    assert prompt.endswith("Question: How fast?\nA) 1 m/s\nB) 2 m/s\nC) 3 m/s\nD) 4 m/s\nAnswer:")


@pytest.mark.parametrize("style", STYLES)
def test_the_reference_is_an_answer_that_earns_the_reward(style):
    for letter, question in zip("ABCD", turned(), strict=True):
        row = render(question, style)
        reference, options = row["privileged_context"], row["options"]
        assert extract_answer(reference, options) == row["answer"] == letter
        assert multiple_choice_reward([reference], [letter], options=[options]) == [1.0]


def turned():
    """The question with its right option in each place."""
    for place, letter in enumerate("ABCD"):
        options = ["1 m/s", "3 m/s", "4 m/s"]
        options.insert(place, "2 m/s")
        solution = f"v = 4 m / 2 s.\nAnswer: {letter}"
        yield replace(QUESTION, options=tuple(options), answer=letter, solution=solution)


def test_short_is_an_example_and_text_that_waits_for_an_option():
    prompt = render(QUESTION, "short")["prompt"]
    example, asked = prompt.split("\n\n")
    assert asked == "Options: 1 m/s, 2 m/s, 3 m/s, 4 m/s\nQuestion: How fast?\nAnswer:"
    options = example.split("Options: ")[1].split("\n")[0].split(", ")
    assert example.rpartition("Answer: ")[2] in options


def test_bare_is_short_without_the_example():
    prompt = render(QUESTION, "short")["prompt"]
    assert prompt.endswith("\n\n" + render(QUESTION, "bare")["prompt"])


def test_the_reference_of_short_is_the_right_options_text():
    assert render(QUESTION, "short")["privileged_context"] == "2 m/s"


def test_a_reference_without_steps_is_the_answer_alone():
    parts = ("", "B", "2 m/s")
    assert STYLES["chat"].reference(*parts) == "<answer>\nB\n</answer>"
    assert STYLES["plain"].reference(*parts) == "Answer: B"
    assert STYLES["short"].reference(*parts) == "2 m/s"


def test_the_steps_stand_before_the_answer():
    assert render(QUESTION, "plain")["privileged_context"] == "v = 4 m / 2 s.\nAnswer: B"
    assert render(QUESTION, "chat")["privileged_context"].startswith(
        "<reasoning>\nv = 4 m / 2 s.\n</reasoning>"
    )


def test_a_style_of_ones_own_can_be_added(monkeypatch):
    monkeypatch.setitem(
        STYLES,
        "bare",
        PromptStyle(lambda stem, options: stem, lambda steps, letter, option: option),
    )
    row = render(QUESTION, "bare")
    assert (row["prompt"], row["privileged_context"]) == ("How fast?", "2 m/s")


def test_an_unknown_style_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"expected one of chat, plain, short, bare, found 'chatt'; did you mean"
    ):
        get_style("chatt")
