"""Whether a retelling is kept."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..answers import MARKER
from ..meanings import answer_fault, mentions, read_answer
from ..quantities import numbers
from .problems import SourceProblem
from .prompts import Retelling
from .signature import overlap, quantity_faults, relation_faults


@dataclass(frozen=True)
class Limits:
    """How much a retelling may depart from its source, and how near it may come to its siblings.

    Args:
        max_overlap: Highest Jaccard index of the content words of two domains. Choice: 0.3, which
            leaves room for the words of a question that every domain needs.
        slack: Most words of one kind of relation by which the counts may differ.

    Raises:
        ValueError: a value outside its range.
    """

    max_overlap: float = 0.3
    slack: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_overlap <= 1 or math.isnan(self.max_overlap):
            raise ValueError(f"max_overlap: expected a value in [0, 1], found {self.max_overlap!r}")
        if self.slack < 0:
            raise ValueError(f"slack: expected 0 or more, found {self.slack!r}")


def review(
    problem: SourceProblem,
    domain: str,
    version: Retelling,
    others: Mapping[str, str],
    limits: Limits,
) -> list[str]:
    """What is wrong with a retelling; empty if it is kept.

    It is kept if the answer survives and the reasoning reaches it, the quantities and relations
    survive, and its wording is not that of another domain, nor that of the source where this is
    known to be in another domain.

    Args:
        problem: The source.
        domain: Domain of the retelling.
        version: The retelling.
        others: Domain -> prompt of what is kept of this problem already.
        limits: How near and how far.
    """
    asked, prompt = problem.prompt, version.prompt
    answer = answer_fault(problem.answer, asked, prompt, version.answer, version.names)
    faults = [answer] if answer else []
    if not faults and not _reaches(problem, version):
        faults.append(f"the reasoning never names the answer {version.answer!r}")
    if MARKER in prompt:
        faults.append(f"expected a prompt without {MARKER!r}, which announces the answer")
    faults += quantity_faults(asked, prompt)
    faults += relation_faults(asked, prompt, limits.slack)
    if problem.domain is not None and problem.domain != domain:
        others = {f"the source ({problem.domain})": asked, **others}
    for name, other in others.items():
        share = overlap(prompt, other)
        if share > limits.max_overlap:
            faults.append(
                f"it shares {share:.0%} of its content words with {name}, at most "
                f"{limits.max_overlap:.0%} may be shared"
            )
    return faults


def _reaches(problem: SourceProblem, version: Retelling) -> bool:
    """Whether the reasoning names the answer; a truth word may be said in many ways."""
    if problem.answer.kind == "truth":
        return True
    if problem.answer.kind == "number":
        return problem.answer.logical in numbers(version.reasoning)
    if problem.answer.kind == "name":
        return mentions(version.reasoning, version.answer)
    option = read_answer(version.prompt, version.answer)
    letter = chr(ord("A") + int(problem.answer.logical[1:]))
    # In its own case, since an "a" is no letter.
    return re.search(rf"\b{letter}\b", version.reasoning) is not None or (
        option is not None and mentions(version.reasoning, option.text)
    )
