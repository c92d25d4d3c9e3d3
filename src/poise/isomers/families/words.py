"""The words of families: read from the YAML files beside this module, and filled in.

A file holds sections. A section holds, domain by domain, what its ``form`` says (a test compares
them): a text, whose placeholders are among those of the form's text; a list of at least as many
entries; a mapping with the same keys. A list of mappings has one for each phrasing, merged with
``patterns`` if the section has them.

A noun is written ``case`` (plural in -s), ``loss|losses``, or ``mL|`` (the same in both).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from operator import add, floordiv, mul, sub
from pathlib import Path
from typing import Any

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_OPERATIONS: Mapping[Any, Any] = {"+": add, "-": sub, "*": mul, "/": floordiv}


@cache
def read_words(name: str, section: str = "phrases") -> Mapping[str, Any]:
    """A section of the file ``NAME.yaml``: domain -> words."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = Path(__file__).with_name(f"{name}.yaml").read_bytes()
    words: dict[str, Any] = yaml.load(text, loader)[section]
    del words["form"]
    patterns = words.pop("patterns", None)
    if patterns is None:
        return words
    return {
        domain: [pattern | own for pattern, own in zip(patterns, each, strict=True)]
        for domain, each in words.items()
    }


def fill(template: str, /, **words: object) -> str:
    """A sentence from a template, its first letter a capital."""
    text = template.format(**words)
    return text[0].upper() + text[1:]


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return fill("{text}.", text=text)


def equation(*terms: int | str) -> tuple[str, int]:
    """Numbers with signs between them, from left to right, as ``5 + 3 = 8`` and the value."""
    value, *others = terms
    for sign, number in zip(others[::2], others[1::2], strict=True):
        value = _OPERATIONS[sign](value, number)
    return f"{' '.join(map(str, terms))} = {value}", int(value)


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
