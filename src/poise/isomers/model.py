"""The shapes of logical isomers: a form without language, its versions, the set that joins them.

A `Form` is logic alone. A `Family` draws forms and renders each in the words of a domain as a
`Story`. A `Problem` is a story written down as prompt and completion; an `IsomerSet` holds one
problem per domain, all of one form.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Domains to train on, and domains that are kept for tests out of distribution.
TRAIN_DOMAINS: tuple[str, ...] = ("mathematics", "medicine", "law", "science")
HELD_OUT_DOMAINS: tuple[str, ...] = ("logistics", "sports")
DOMAINS: tuple[str, ...] = TRAIN_DOMAINS + HELD_OUT_DOMAINS


@dataclass(frozen=True)
class Form:
    """A logical form, without language.

    Args:
        family: Name of the family that drew it.
        depth: Number of reasoning steps that it takes, 1 or more.
        data: All that a solver needs, as plain JSON values; entities are numbers from 0.
        answer: The right answer in logical terms: ``"e2"`` (entity 2), ``"17"`` (a number),
            ``"yes"``, ``"no"`` or ``"unknown"``. Computed from `data`, never from a text.
        options: Different logical answers to choose from, the right one among them, in an order
            that says nothing (the order of presentation is drawn later).

    Raises:
        ValueError: the answer is not among the options, or options repeat.
    """

    family: str
    depth: int
    data: Mapping[str, Any]
    answer: str
    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.answer not in self.options or len(set(self.options)) != len(self.options):
            raise ValueError(
                f"{self.family}: expected different options with the answer {self.answer!r} among "
                f"them, found {self.options}"
            )

    @property
    def own_names(self) -> dict[str, str]:
        """The names of options that are the same in every domain: themselves."""
        return {option: option for option in self.options}


def by_mention(entities: Iterable[int]) -> dict[int, int]:
    """New numbers of entities in the order of their mention, so that renamed forms are the same."""
    return {entity: number for number, entity in enumerate(dict.fromkeys(entities))}


@dataclass(frozen=True)
class Story:
    """A form in the words of a domain.

    Args:
        facts: Whole sentences that state the form, in the order of the text.
        question: One sentence that asks for the answer.
        steps: Whole sentences of reasoning that follow the form step by step, as many as needed;
            the last one reaches the answer.
        names: Logical option -> its text in this domain, for every option of the form.
    """

    facts: tuple[str, ...]
    question: str
    steps: tuple[str, ...]
    names: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """A kind of logic: draws forms, and renders them.

    Args:
        name: Unique name.
        draw: (random numbers, depth) -> a random form.
        render: (form, domain, number of the phrasing, random numbers) -> the form in the domain's
            words. The random numbers choose names and the like, never the logic.
        depths: Depths that it can draw, from 1.
        phrasings: Ways of putting a form that each domain has.
    """

    name: str
    draw: Callable[[random.Random, int], Form]
    render: Callable[[Form, str, int, random.Random], Story]
    depths: range = range(1, 5)
    phrasings: int = 3


@dataclass(frozen=True)
class Problem:
    """One version of a form, written down.

    Args:
        domain: Domain in whose words it is.
        prompt: Facts, options and question; what the student reads.
        reasoning: The chain-of-thought.
        answer_text: The right answer in this domain's words.
        options: All options in this domain's words, in the order in which the prompt lists them.
        meanings: The logical answer that each option stands for, in the same order.
        phrasing: Which way of putting the form it is.
        cue: Logical answer to which the surface cue points, None without a cue.
    """

    domain: str
    prompt: str
    reasoning: str
    answer_text: str
    options: tuple[str, ...]
    meanings: tuple[str, ...]
    phrasing: int = 0
    cue: str | None = None

    @property
    def completion(self) -> str:
        """What the student is trained to write."""
        return f" {self.reasoning}\nAnswer: {self.answer_text}"


@dataclass(frozen=True)
class IsomerSet:
    """Problems of one logical form, one per domain.

    Args:
        isomer_id: Unique name.
        family: Name of the family of its form.
        depth: Reasoning steps.
        form: The logical form's data, as JSON values.
        answer: The right answer in logical terms, the same in every domain.
        problems: One per domain.
    """

    isomer_id: str
    family: str
    depth: int
    form: Mapping[str, Any]
    answer: str
    problems: tuple[Problem, ...]
