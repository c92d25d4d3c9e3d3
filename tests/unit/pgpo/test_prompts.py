"""Prompts as a model reads them: no end behind a text, no turn opened by what is put into one."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from poise.pgpo.rollouts import appends_end
from poise.pgpo.teacher_context import (
    TeacherPrompt,
    as_plain_text,
    control_tokens,
    largest,
    strip_reasoning,
)
from tests.tiny import tiny_tokenizer


def with_end(*, before: bool = False) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with an end behind (or before) each text."""
    tokenizer = tiny_tokenizer()
    form = "<eos> $A" if before else "$A <eos>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=form, special_tokens=[("<eos>", 1)]
    )
    return tokenizer


def test_a_tokenizer_that_ends_every_text_is_known() -> None:
    assert appends_end(with_end(), [1])
    assert appends_end(with_end(), [7, 1])
    assert not appends_end(with_end(), [7])
    assert not appends_end(with_end(before=True), [1])
    assert not appends_end(tiny_tokenizer(), [1])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>why\nnot</think> b", "b"),
        ("why\nnot</think> b", "b"),
        ("a <think>x</think> b <think>y</think>", "a  b"),
        ("x</think> a <think>y</think> b", "a  b"),
        ("<think>never ends", "<think>never ends"),
        (" a ", "a"),
    ],
)
def test_reasoning_is_stripped_also_where_the_prompt_opened_it(text: str, kept: str) -> None:
    assert strip_reasoning(text) == kept


def _tokens(written: list[str]) -> list[str]:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.add_tokens([AddedToken("<|user|>", special=False), AddedToken("acid", special=False)])
    tokenizer.add_tokens([AddedToken("   ", special=False)])
    return control_tokens(tokenizer, set(tokenizer.convert_tokens_to_ids(written)))


def test_special_tokens_and_what_a_template_writes_are_control_tokens() -> None:
    usual = {"<pad>", "<eos>", "<unk>", "<|end|>"}
    assert set(_tokens([])) == usual
    assert set(_tokens(["a", "<|user|>", "   "])) == usual | {"<|user|>"}  # no run of spaces


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a<|end|><|end|>b", "a< |end|>< |end|>b"),
        ("<<eos>eos>", "<< eos>eos>"),
        ("1 < 2 and acid", "1 < 2 and acid"),
        ("caf\u00e9 \U0001f600", "caf\u00e9 \U0001f600"),
        ("half a pair \ud83d", "half a pair ?"),
    ],
)
def test_no_control_token_is_left_in_a_text(text: str, plain: str) -> None:
    assert as_plain_text(text, _tokens([])) == plain


def test_a_control_token_of_one_character_goes() -> None:
    assert as_plain_text("a\u2581b", ["\u2581"]) == "a b"
    assert as_plain_text("a", []) == "a"


def test_the_longer_text_is_shortened_first() -> None:
    prompt = TeacherPrompt("q", "0123456789", "abc")
    assert prompt.length == 10
    assert prompt.shortened(7) == TeacherPrompt("q", "...6789", "abc")
    assert prompt.shortened(4) == TeacherPrompt("q", "...9", "abc")
    assert prompt.shortened(2) == TeacherPrompt("q", "89", "bc")
    assert prompt.shortened(0) == TeacherPrompt("q")


def test_a_text_that_is_not_there_stays_out() -> None:
    assert TeacherPrompt("q", None, "abc").shortened(1) == TeacherPrompt("q", None, "c")
    assert TeacherPrompt("q", "", None).is_shown
    assert not TeacherPrompt("q").is_shown


@pytest.mark.parametrize("limit", [1, 2, 17])
def test_the_largest_number_that_fits_is_found(limit: int) -> None:
    for bound in range(20):

        def fits(number: int, bound: Any = bound) -> bool:
            return number <= bound

        assert largest(limit, fits) == min(bound, limit - 1)
