"""Nouns with numbers and articles, and templates filled in.

A noun is written ``case`` (plural in -s), ``loss|losses``, or ``mL|`` (the same in both).
"""

from __future__ import annotations


def singular(noun: str) -> str:
    """The noun for one."""
    return noun.partition("|")[0]


def plural(noun: str) -> str:
    """The noun for several."""
    one, bar, many = noun.partition("|")
    return many or (one if bar else f"{one}s")


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 day``, ``3 days``."""
    return f"{number} {singular(noun) if number == 1 else plural(noun)}"


def every(number: int, noun: str) -> str:
    """``every day``, ``every 3 days``."""
    return f"every {singular(noun) if number == 1 else counted(number, noun)}"


def an(noun: str) -> str:
    """A noun with its article, by its first letter."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def fill(template: str, /, **words: object) -> str:
    """A sentence from a template, its first letter a capital."""
    text = template.format(**words)
    return text[0].upper() + text[1:]
