"""The teacher is told what counts, and its reply is read with patience but not with guesses."""

from __future__ import annotations

import json

import pytest

from poise.isomers.build.problems import SourceProblem
from poise.isomers.build.prompts import (
    MalformedReply,
    Version,
    ask_again,
    make_messages,
    parse_reply,
)
from poise.isomers.meanings import read_answer

REPLY = {"prompt": "How many {deeds}?", "reasoning": "2 and 3 is 5.", "answer": "5"}
READ = Version("How many {deeds}?", "2 and 3 is 5.", "5")


def problem(prompt: str = "How many?", answer: str = "5", solution: str = "") -> SourceProblem:
    read = read_answer(prompt, answer)
    assert read is not None
    return SourceProblem("p", prompt, read, solution)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(REPLY),
        f"```json\n{json.dumps(REPLY, indent=2)}\n```",
        f"Here {{it}} is: {json.dumps(REPLY)} Enjoy {{!}}",
        f'<think>{{"prompt": "draft"}}</think>\n{json.dumps(REPLY)}',
        json.dumps(REPLY | {"answer": 5}),
        json.dumps(REPLY | {"answer": "Answer: 5"}),
        json.dumps(REPLY | {"reasoning": "2 and 3 is 5.\nAnswer: 5"}),
        json.dumps(REPLY | {"extra": [1], "names": {}}),
    ],
)
def test_a_reply_is_read_in_spite_of_its_wrapping(text: str) -> None:
    assert parse_reply(text) == READ


def test_raw_line_breaks_within_strings_are_read() -> None:
    text = json.dumps(REPLY | {"reasoning": "one.NEWLINEtwo."}).replace("NEWLINE", "\n")
    assert parse_reply(text).reasoning == "one.\ntwo."


def test_half_a_surrogate_pair_becomes_writable() -> None:
    text = json.dumps(REPLY).replace("deeds", "\\ud83d")
    assert parse_reply(text).prompt.encode() == b"How many {?}?"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "one complete JSON object"),
        ("I cannot do that.", "one complete JSON object"),
        (json.dumps(REPLY)[:-9], "one complete JSON object"),
        (json.dumps([REPLY["prompt"]]), "one complete JSON object"),
        ("{" * 5000, "one complete JSON object"),
        (json.dumps(REPLY | {"answer": ""}), "text in 'answer', found ''"),
        (json.dumps(REPLY | {"answer": True}), "text in 'answer', found True"),
        (json.dumps(REPLY | {"prompt": ["a"]}), "text in 'prompt'"),
        (json.dumps({"prompt": "a", "answer": "5"}), "text in 'reasoning', found None"),
        (json.dumps(REPLY | {"reasoning": "  "}), "text in 'reasoning', found blanks"),
        (json.dumps(REPLY | {"reasoning": "Answer: 5"}), "found the answer alone"),
        (json.dumps(REPLY | {"names": ["Ann"]}), "object of names"),
        (json.dumps(REPLY | {"names": {"Ann": 3}}), "object of names"),
    ],
)
def test_a_malformed_reply_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(MalformedReply, match=reason):
        parse_reply(text)


def test_the_teacher_is_told_domain_source_solution_and_siblings() -> None:
    system, user = make_messages(problem(solution="2 and 3."), "law", ["A nurse\nsits."])
    assert system["role"] == "system" and '"names"' not in system["content"]
    for part in ("Domain: law", "How many?", "2 and 3.", "answer: 5", "- A nurse sits."):
        assert part in user["content"]


def test_the_teacher_is_asked_for_names_where_the_answer_is_one() -> None:
    system, _ = make_messages(problem("Ann leads Bo. Who leads?", "Ann"), "law")
    assert '"names"' in system["content"]


def test_the_teacher_is_told_why_its_last_reply_failed() -> None:
    messages = ask_again("x" * 9999, "the 5 is gone")
    assert [turn["role"] for turn in messages] == ["assistant", "user"]
    assert "the 5 is gone" in messages[1]["content"]
    assert len(messages[0]["content"]) < 5000
    assert all(turn["content"] for turn in ask_again("", "nothing said"))
