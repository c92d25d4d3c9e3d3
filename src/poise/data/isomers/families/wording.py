"""Numbers with their nouns, and templates filled in."""

from __future__ import annotations


def plural(noun: str) -> str:
    """The plural of a noun written as ``singular|plural``."""
    return noun.rpartition("|")[2]


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 day``, ``3 days``."""
    return f"{number} {noun.partition('|')[0] if number == 1 else plural(noun)}"


def every(number: int, noun: str) -> str:
    """``every day``, ``every 3 days``."""
    return f"every {noun.partition('|')[0] if number == 1 else counted(number, noun)}"


def fill(template: str, /, **words: object) -> str:
    """A sentence from a template, its first letter a capital."""
    text = template.format(**words)
    return text[0].upper() + text[1:]
