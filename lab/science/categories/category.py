"""Kinds of things that every school book names, with members that are short to write.

A thing stands in every category of its domain that it belongs to, so that the wrong options of a
question can be drawn from all things outside the category. Where school books disagree, or where
only a specialist would say no, the things are ``doubtful`` and never stand in that question.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """Things of one kind.

    Args:
        asks: What is true of every member, as it stands in "Which of these ...?".
        members: The things, in small letters.
        doubtful: Things that are never set against a member.
    """

    asks: str
    members: tuple[str, ...]
    doubtful: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``"is a noble gas"`` -> ``"noble_gas"``."""
        words = self.asks.split()
        return "_".join(words[2:] if words[1] in ("a", "an") else words[1:])


def things(text: str) -> tuple[str, ...]:
    """Split a list of names, which may have several words each."""
    return tuple(text.split(", "))
