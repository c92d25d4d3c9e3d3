"""Science questions by name."""

from __future__ import annotations

from collections import Counter

import lab.science.source  # noqa: F401  (registers 'science')

from poise.data.load import load_questions
from poise.rows import check_dataset
from tests.unit.data.test_prompts import COLUMNS


def test_science_is_generated_with_our_columns() -> None:
    table = load_questions("science", "test", count=40, seed=1, style="plain", levels=[1])
    assert table.column_names == COLUMNS
    assert set(table["level"]) == {1} and len(table) == 40
    assert all(isinstance(prompt, str) for prompt in table["prompt"])
    check_dataset(table)


def test_domains_follow_the_colon() -> None:
    counts = Counter(load_questions("science:physics, chemistry", count=20)["domain"])
    assert counts == {"physics": 10, "chemistry": 10}


def test_chat_is_the_default_style() -> None:
    (prompt,) = load_questions("science", count=1)["prompt"]
    assert [turn["role"] for turn in prompt] == ["system", "user"]


def test_recall_is_generated_where_it_is_asked_for() -> None:
    assert 0 not in load_questions("science", count=80)["level"]
    table = load_questions("science:physics", count=20, levels=[0], style="short")
    assert set(table["level"]) == {0}
    assert all(row["privileged_context"] in row["options"] for row in table)
