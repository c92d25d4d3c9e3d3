"""Isomer sets whose answers a model of letters can give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TESTS = ("in_distribution", "reversed", "deeper")
ORDERS = {"law": "A B", "science": "B A"}


@pytest.fixture
def few() -> list[str]:
    """More and longer samples than elsewhere."""
    return ["--k", "8", "--max_new_tokens", "4"]


def isomer_rows(sets: int = 3) -> list[dict[str, Any]]:
    """Each set in two domains, whose words mean opposite things."""
    return [
        {
            "isomer_id": f"s{i}",
            "domain": domain,
            "test": test,
            "depth": 1,
            "prompt": "Question: " + "C D " * (i + 1) + letters + " D" * letters.index("A"),
            "completion": f" {letters}\nAnswer: {letters[0]}",
            "answer": "e0",
            "options": ["A", "B"],
            "meanings": [f"e{letters.index(letter) // 2}" for letter in "AB"],
        }
        for test in TESTS
        for i in range(sets)
        for domain, letters in ORDERS.items()
    ]


@pytest.fixture
def isomers_path(tmp_path: Path) -> Path:
    path = tmp_path / "isomers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in isomer_rows()))
    return path
