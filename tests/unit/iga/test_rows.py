"""Rows as they are prepared: one end each, and a word on those that go."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from poise.iga.batches import OneEnd, tell_lost_rows, with_one_end
from tests.tiny import tiny_tokenizer


def _tokenizer(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    ends = [("<eos>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template, special_tokens=ends
    )
    return tokenizer


@pytest.mark.parametrize("text", ["ab", "ab<eos>", "", "<eos>"])
def test_an_appended_end_is_left_out_and_a_written_one_stays(text: str) -> None:
    plain, wrapped = tiny_tokenizer(), with_one_end(_tokenizer("$A <eos>"))
    assert isinstance(wrapped, OneEnd)
    found = wrapped(text=text)
    assert found["input_ids"] == plain(text=text)["input_ids"]
    assert len(found["attention_mask"]) == len(found["input_ids"])


def test_an_end_at_the_beginning_stays() -> None:
    assert with_one_end(_tokenizer("<eos> $A <eos>"))(text="a")["input_ids"][0] == 1
    assert len(with_one_end(_tokenizer("<eos> $A <eos>"))(text="a")["input_ids"]) == 2


@pytest.mark.parametrize("tokenizer", [tiny_tokenizer(), _tokenizer("<eos> $A"), print])
def test_other_tokenizers_are_as_they_are(tokenizer: Any) -> None:
    assert with_one_end(tokenizer) is tokenizer


def test_conversations_are_the_tokenizers_own() -> None:
    talk: list[dict[str, str]] = [{"role": "user", "content": "a"}]
    ends = _tokenizer("$A <eos>")
    expected = ends.apply_chat_template(talk, tokenize=True, return_dict=True)
    assert with_one_end(ends).apply_chat_template(talk, tokenize=True, return_dict=True) == expected


def _sets(*rows: str) -> Dataset:
    return Dataset.from_dict({"isomer_id": [r[0] for r in rows], "domain": [r[1] for r in rows]})


def test_sets_that_lose_a_domain_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    tell_lost_rows(_sets("ax", "ay", "bx", "by", "cx"), _sets("ax", "bx"), "train data", 9)
    assert "3 of 5 rows have no completion left within max_length=9" in caplog.text
    assert "2 isomer sets lack domains that they had (rows lost: 2 of 'y', 1 of 'x')" in caplog.text


def test_rows_without_sets_are_told_of_too(caplog: pytest.LogCaptureFixture) -> None:
    rows = Dataset.from_dict({"prompt": ["a", "b"]})
    tell_lost_rows(rows, rows.select([0]), "eval data", 9)
    assert "eval data: 1 of 2 rows" in caplog.text
    assert "sets" not in caplog.text


def test_nothing_is_said_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tell_lost_rows(_sets("ax", "ay"), _sets("ay", "ax"), "train data", 9)
    assert not caplog.records


def test_no_row_left_is_an_error() -> None:
    with pytest.raises(ValueError, match="eval data: no row has a completion within max_length=9"):
        tell_lost_rows(_sets("ax"), _sets("ax").select([]), "eval data", 9)
