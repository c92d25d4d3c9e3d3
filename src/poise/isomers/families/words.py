"""The words of families: read from the YAML files beside this module, checked, and filled in.

A file holds sections. A section holds, domain by domain, what its ``form`` says: a text, whose
placeholders are among those of the form's text; a list of at least as many entries; a mapping with
the same keys. A list of mappings has one for each phrasing, merged with ``patterns`` if the
section has them.

A noun is written ``case`` (plural in -s), ``loss|losses``, or ``mL|`` (the same in both).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..model import DOMAINS

PHRASINGS = 3
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


@cache
def read_words(name: str, section: str = "phrases") -> Mapping[str, Any]:
    """A section of the file ``NAME.yaml``: domain -> words.

    Raises:
        ValueError: a domain or a text is missing, or not what the section's form says.
    """
    sections = _read(Path(__file__).with_name(f"{name}.yaml"))
    words = dict(sections[section])
    form, patterns = words.pop("form"), words.pop("patterns", None)
    if patterns:
        words = {
            domain: [pattern | own for pattern, own in zip(patterns, each, strict=True)]
            for domain, each in words.items()
        }
    check_words(words, dict.fromkeys(DOMAINS, form), f"{name}.yaml: {section}")
    return words


@cache
def _read(path: Path) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_bytes(), loader)


def check_words(found: Any, form: Any, where: str) -> None:
    """Compare words with their form, as the module says.

    Raises:
        ValueError: they differ; the place is named.
    """
    fits = isinstance(found, type(form))
    expected = type(form).__name__
    if isinstance(form, str):
        known = set(_PLACEHOLDER.findall(form))
        fits = fits and bool(found.strip()) and set(_PLACEHOLDER.findall(found)) <= known
        expected = f"text with no placeholders but {sorted(known)}"
    elif isinstance(form, dict):
        fits = fits and set(found) == set(form)
        expected = f"the keys {list(form)}"
    elif isinstance(form[0], dict):
        fits = fits and len(found) == PHRASINGS
        expected = f"{PHRASINGS} phrasings"
    else:
        fits = fits and len(found) >= len(form)
        expected = f"a list of {len(form)} or more"
    if not fits:
        raise ValueError(f"{where}: expected {expected}, found {found!r:.200}")
    if isinstance(form, dict):
        for key, inner in form.items():
            check_words(found[key], inner, f"{where}, {key}")
    elif isinstance(form, list):
        for place, part in enumerate(found):
            check_words(part, form[min(place, len(form) - 1)], f"{where}, {place + 1}")


def draw_names(domain: str, count: int, rng: random.Random, kind: str = "names") -> list[str]:
    """Different ``names`` or ``choices`` of a domain, in random order.

    Raises:
        ValueError: the domain has fewer.
    """
    known = read_words("names", kind)[domain]
    if count > len(known):
        raise ValueError(
            f"{domain}: expected at most {len(known)} names to be asked for, found {count}"
        )
    return rng.sample(known, count)


def sentence(text: str) -> str:
    """The text with a capital first letter and a full stop."""
    return f"{capital(text)}."


def fill(template: str, /, **words: object) -> str:
    """A sentence from a template, its first letter a capital."""
    return capital(template.format(**words))


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


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
