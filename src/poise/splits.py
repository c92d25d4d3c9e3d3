"""Splits that never share a question, whatever the seed or the order of asking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: Mapping[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


def check_split(split: str) -> Split:
    """Return ``split`` if it is one of ours, else raise ValueError."""
    for known in SPLITS:
        if split == known:
            return known
    raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")


def stable_fraction(key: str) -> float:
    """Map a text to [0, 1), evenly and alike on every machine (SHA-256, not ``hash``)."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48


def stable_split(key: str) -> Split:
    """Give the split to which a question's content belongs: 80 % train, 10 %, 10 %.

    The content alone decides, so no choice of seed can move a test question into training.
    """
    fraction = stable_fraction(key)
    if fraction < SHARES["train"]:
        return "train"
    return "validation" if fraction < SHARES["train"] + SHARES["validation"] else "test"
