"""The study of whether the cipher can tell: three shares of right answers, and their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.studies import validity
from lab.tasks import cipher

CONFIG = {"method": "the cipher", "seed": 1, "questions": 64, "steps": 120, "rows": 32}


@pytest.mark.parametrize("change", [{"steps": 0}, {"questions": None}, {"rate": 1.0}], ids=str)
def test_refuses_other_settings(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        validity.check(CONFIG | change)


def test_the_teachers_prompt_is_the_trainers() -> None:
    text = cipher.marks("1 2 3 4 5 6", "1 2 3 4 5 0")
    assert validity._shown("Q a =", text) == f"{text} Q a ="


def test_three_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that reads a little, a student that knows nothing, an oracle that learns."""
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))  # no study may find this model
    monkeypatch.setattr(cipher, "READS", 0.9)
    monkeypatch.setattr(cipher, "SAYS", 0.0)
    figures = validity.run(CONFIG)
    assert 0 <= figures["start"] < figures["teacher"] <= 1
    assert 0 <= figures["supervised"] <= 1
