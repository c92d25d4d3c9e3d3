"""Reference completions that the models' completions have no room for are counted by test."""

from __future__ import annotations

from typing import Any

from poise.cli.eval import cut_references


def words(text: str, add_special_tokens: bool) -> dict[str, list[str]]:
    assert not add_special_tokens
    return {"input_ids": text.split()}


def isomer(completion: Any, test: str | None = None) -> dict[str, Any]:
    return {"isomer_id": "s", "completion": completion, "test": test}


def test_references_that_do_not_fit_are_counted_by_test() -> None:
    rows = [isomer("a b c", "deeper"), isomer("a b", "deeper"), isomer("a", "no_cue")]
    assert cut_references(rows, words, 3) is None
    said = cut_references(rows, words, 2)
    assert said is not None and "(2): deeper 1 of 2; " in said and "the longest takes 3" in said
    said = cut_references(rows, words, 1)
    assert said is not None and "deeper 2 of 2" in said and "no_cue" not in said


def test_chats_are_read_and_other_questions_are_not() -> None:
    chat = [{"role": "assistant", "content": "a b c"}]
    assert "all 1 of 1" in str(cut_references([isomer(chat)], words, 2))
    others = [{"completion": "a b c"}, isomer(None), {"isomer_id": "s"}]
    assert cut_references(others, words, 2) is None
