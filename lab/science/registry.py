"""The table of question templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from poise.question import LEVELS

# Level 0 asks for a fact; it is made where it is asked for.
COMPUTED_LEVELS: tuple[int, ...] = LEVELS[1:]
DOMAINS = ("chemistry", "physics", "biology", "materials")


@dataclass(frozen=True)
class Draft:
    """A question before its options have an order.

    Args:
        stem: The question.
        given: The sampled quantities. They are the question's content: they alone decide its
            split, and two drafts with equal ``given`` are the same question.
        answer: Text of the right option.
        others: Draws the texts of the three wrong ones; only for drafts that become questions.
        steps: The worked solution.
    """

    stem: str
    given: tuple[object, ...]
    answer: str
    others: Callable[[Random], Sequence[str]]
    steps: tuple[str, ...]


Maker = Callable[[Random], Draft]


@dataclass(frozen=True)
class Template:
    """A maker of questions with its place in the balance of the data set."""

    domain: str
    name: str
    level: int
    make: Maker

    def key(self, draft: Draft) -> str:
        """Name the content of a draft, whatever the order of its options."""
        return "|".join([self.domain, self.name, *map(str, draft.given)])


TEMPLATES: dict[tuple[str, str], Template] = {}


def template(domain: str, name: str, level: int) -> Callable[[Maker], Maker]:
    """Register a function as the template ``name`` of a domain.

    Raises:
        ValueError: If the domain or level is unknown, or the name is taken.
    """
    if domain not in DOMAINS or level not in LEVELS:
        raise ValueError(
            f"template {name}: expected a domain of {DOMAINS} and a level of {LEVELS}, "
            f"found {domain!r} and {level!r}"
        )

    def register(make: Maker) -> Maker:
        if (domain, name) in TEMPLATES:
            raise ValueError(f"template {domain}/{name} exists already; choose another name")
        TEMPLATES[domain, name] = Template(domain, name, level, make)
        return make

    return register


def templates(domain: str, level: int) -> list[Template]:
    """List the templates of one domain and level, by name."""
    found = [t for t in TEMPLATES.values() if (t.domain, t.level) == (domain, level)]
    return sorted(found, key=lambda t: t.name)
