"""What the student and the teacher see."""

from __future__ import annotations

import pytest

from poise.data.prompts import STYLES, PromptStyle, get_style
from poise.rewards import LETTERS, multiple_choice_reward

OPTIONS = ["1 m/s", "2 m/s", "3 m/s", "4 m/s"]
NAMES = ("chat", "plain", "short")


def test_chat_is_a_system_and_a_user_message_with_lettered_options() -> None:
    system, user = get_style("chat").prompt("How fast?", OPTIONS)
    assert (system["role"], user["role"]) == ("system", "user")
    assert "<answer>\nA\n</answer>" in system["content"]
    assert user["content"] == (
        "How fast?\n\nA: 1 m/s\nB: 2 m/s\nC: 3 m/s\nD: 4 m/s\nPlease reason step by step."
    )


def test_plain_is_text_that_waits_for_the_letter() -> None:
    prompt = get_style("plain").prompt("How fast?", OPTIONS)
    assert prompt.endswith("Question: How fast?\nA) 1 m/s\nB) 2 m/s\nC) 3 m/s\nD) 4 m/s\nAnswer:")


def test_short_is_an_example_and_text_that_waits_for_an_option() -> None:
    example, asked = get_style("short").prompt("How fast?", OPTIONS).split("\n\n")
    assert asked == "Options: 1 m/s, 2 m/s, 3 m/s, 4 m/s\nQuestion: How fast?\nAnswer:"
    options = example.split("Options: ")[1].split("\n")[0].split(", ")
    assert example.rpartition("Answer: ")[2] in options


@pytest.mark.parametrize("style", NAMES)
@pytest.mark.parametrize("steps", ["", "v = 4 m / 2 s."])
def test_the_reference_is_an_answer_that_earns_the_reward(style: str, steps: str) -> None:
    for letter, option in zip(LETTERS, OPTIONS, strict=True):
        reference = get_style(style).reference(steps, letter, option)
        assert multiple_choice_reward([reference], [letter], options=[OPTIONS]) == [1.0]


def test_the_steps_stand_before_the_answer() -> None:
    told = [STYLES[name].reference("So.", "B", "2 m/s") for name in NAMES]
    chat = "<reasoning>\nSo.\n</reasoning>\n<answer>\nB\n</answer>"
    assert told == [chat, "So.\nAnswer: B", "2 m/s"]


def test_a_style_of_ones_own_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PromptStyle(lambda stem, options: stem, lambda steps, letter, option: option)
    monkeypatch.setitem(STYLES, "own", own)
    assert get_style("own") is own
    with pytest.raises(ValueError, match=r"expected one of chat, plain, .*'chatt'; did you mean"):
        get_style("chatt")
