"""Accuracy measures over saved records. They read records only, never a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from .records import QuestionRecord

Values = NDArray[np.float64]
Measure = Callable[[QuestionRecord], float]

# A sample is right when it earns at least this much; partial credit counts in avg@k alone.
CORRECT = 1.0


def average(question: QuestionRecord) -> float:
    """Mean reward of the k samples; its mean over questions is avg@k."""
    return sum(question.rewards) / len(question.rewards)


def pass_at(k: int) -> Measure:
    """Probability that at least one of k samples is right: ``1 - C(n - c, k) / C(n, k)``.

    Unbiased from n >= k samples with c right ones.

    Source: Chen et al., Evaluating Large Language Models Trained on Code (2021), equation 1.

    Raises:
        ValueError: k is below 1, or (when called) above the number of samples.
    """
    if k < 1:
        raise ValueError(f"pass@k: expected k >= 1, found {k}")

    def measure(question: QuestionRecord) -> float:
        n = len(question.rewards)
        if k > n:
            raise ValueError(f"pass@{k}: expected {k} or more samples, {question.id} has {n}")
        right = sum(reward >= CORRECT for reward in question.rewards)
        return 1.0 - comb(n - right, k) / comb(n, k)

    return measure


def majority(question: QuestionRecord) -> float:
    """1 where the most frequent extracted answer is right; its mean over questions is maj@k.

    Choice: samples without an answer do not vote, and m answers that tie share the point (1/m),
    which is what drawing one of them at random earns on average.
    """
    votes = Counter(answer for answer in question.extracted if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = [answer for answer, count in votes.items() if count == most]
    return (question.answer in winners) / len(winners)


def format_rate(question: QuestionRecord) -> float:
    """Share of the samples in which an answer was found."""
    return sum(answer is not None for answer in question.extracted) / len(question.extracted)


def finished_rate(question: QuestionRecord) -> float:
    """Share of the samples that ended by themselves, not by the token limit."""
    return sum(question.finished) / len(question.finished)


def mean_length(question: QuestionRecord) -> float:
    """Mean length of the samples in tokens."""
    return sum(question.lengths) / len(question.lengths)


def values(questions: Iterable[QuestionRecord], measure: Measure) -> Values:
    """The measure of every question, shape (number of questions,)."""
    return np.array([measure(question) for question in questions], dtype=np.float64)


def samples_per_question(questions: Sequence[QuestionRecord]) -> int:
    """The k that all questions reach, 0 without questions."""
    return min((len(question.rewards) for question in questions), default=0)


def group_by(
    questions: Iterable[QuestionRecord], key: Callable[[QuestionRecord], str | int | None]
) -> dict[str | int, list[QuestionRecord]]:
    """Questions by a property, e.g. domain or level, sorted; those without it are left out."""
    groups: dict[str | int, list[QuestionRecord]] = {}
    for question in questions:
        if (name := key(question)) is not None:
            groups.setdefault(name, []).append(question)
    return dict(sorted(groups.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def paired_values(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord], measure: Measure
) -> tuple[Values, Values]:
    """The measure before and after of the questions that both have, in the same order.

    Raises:
        ValueError: no question is in both, or one has another answer in the other.
    """
    earlier = {question.id: question for question in before}
    common = [question for question in after if question.id in earlier]
    if not common:
        raise ValueError(
            "paired difference: expected the same questions before and after, found none in common"
        )
    for question in common:
        if question.answer != earlier[question.id].answer:
            raise ValueError(
                f"paired difference: question {question.id!r} has the answer "
                f"{earlier[question.id].answer!r} before and {question.answer!r} after"
            )
    return values((earlier[question.id] for question in common), measure), values(common, measure)
