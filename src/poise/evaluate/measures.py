"""Accuracy measures over saved records, what changed between two, and how people read them.

A measure of one question is a number in [0, 1]; that of an evaluation is its mean over questions,
with a 95 % interval.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean
from typing import Any

from .records import QuestionRecord
from .statistics import Difference, Interval, mean_interval, paired_difference

Questions = Sequence[QuestionRecord]

# A sample is right when it earns at least this much; partial credit counts in avg@k alone.
CORRECT = 1.0


def average(question: QuestionRecord) -> float:
    """Mean reward of the k samples; its mean over questions is avg@k."""
    return sum(question.rewards) / len(question.rewards)


def pass_at(k: int, question: QuestionRecord) -> float:
    """Probability that at least one of k samples is right: ``1 - C(n - c, k) / C(n, k)``.

    Unbiased from n >= k samples with c right ones; ValueError for any other k.

    Source: Chen et al., Evaluating Large Language Models Trained on Code (2021), equation 1.
    """
    n = len(question.rewards)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k}: expected 1 to {n}, the samples of {question.id}")
    right = sum(reward >= CORRECT for reward in question.rewards)
    return 1.0 - comb(n - right, k) / comb(n, k)


def majority(question: QuestionRecord) -> float:
    """1 where the most frequent extracted answer is right; its mean over questions is maj@k.

    Choice: samples without an answer do not vote, and m answers that tie share the point (1/m),
    which is what drawing one of them at random earns on average.
    """
    votes = Counter(answer for answer in question.extracted if answer is not None)
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return (question.answer in winners) / len(winners) if winners else 0.0


def group_by(
    questions: Iterable[QuestionRecord], key: Callable[[QuestionRecord], str | int | None]
) -> dict[str | int, list[QuestionRecord]]:
    """Questions by a property, e.g. domain or level, sorted; those without it are left out."""
    groups: dict[str | int, list[QuestionRecord]] = {}
    for question in questions:
        if (name := key(question)) is not None:
            groups.setdefault(name, []).append(question)
    return dict(sorted(groups.items(), key=lambda item: (isinstance(item[0], str), item[0])))


@dataclass(frozen=True)
class Summary:
    """An evaluation in numbers, all rates in [0, 1] with 95 % intervals over questions."""

    questions: int  # how many
    k: int  # samples per question
    average: Interval  # avg@k
    passed: Interval  # pass@k
    majority: Interval  # maj@k
    format: Interval  # share of samples with an answer
    passes: dict[int, float]  # pass@j for j = 1, 2, 4, ... up to k
    finished: float  # share of samples that ended by themselves
    length: float  # mean length of a sample in tokens


def summarise(questions: Questions) -> Summary:
    """All measures of an evaluation, not an empty one; its k is what every question reaches."""
    if not questions:
        raise ValueError("summary: expected one or more questions, found none")
    k = min(len(question.rewards) for question in questions)
    found = [sum(a is not None for a in q.extracted) / len(q.extracted) for q in questions]
    return Summary(
        questions=len(questions),
        k=k,
        average=average_interval(questions),
        passed=mean_interval([pass_at(k, q) for q in questions]),
        majority=mean_interval([majority(q) for q in questions]),
        format=mean_interval(found),
        passes={
            j: fmean(pass_at(j, q) for q in questions)
            for j in sorted({2**i for i in range(k.bit_length())} | {k})
        },
        finished=fmean(fmean(q.finished) for q in questions),
        length=fmean(fmean(q.lengths) for q in questions),
    )


def average_interval(questions: Questions) -> Interval:
    """avg@k with its interval."""
    return mean_interval([average(question) for question in questions])


def compare(before: Questions, after: Questions) -> Difference:
    """Paired difference of avg@k, after minus before, on the questions that both have.

    Raises:
        ValueError: They have none in common, or one has another answer in the other.
    """
    pairs = common(before, after)
    if not pairs:
        raise ValueError(
            "paired difference: expected the same questions before and after, found none in common"
        )
    first, second = ([average(pair[side]) for pair in pairs] for side in (0, 1))
    return paired_difference(first, second)


def common(before: Questions, after: Questions) -> list[tuple[QuestionRecord, QuestionRecord]]:
    """The questions that both have, in the order of `after`; ValueError for another answer."""
    earlier = {question.id: question for question in before}
    pairs = [(earlier[question.id], question) for question in after if question.id in earlier]
    for first, second in pairs:
        if first.answer != second.answer:
            raise ValueError(
                f"paired difference: question {first.id!r} has the answer "
                f"{first.answer!r} before and {second.answer!r} after"
            )
    return pairs


def percent(interval: Interval) -> str:
    """A rate in percent with its interval: ``52.7 [48.0, 57.4]``."""
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A difference of rates in percentage points: ``+20.7 [+17.3, +24.0]``."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def p_value(p: float) -> str:
    """A p-value with as many digits as a reader needs."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def shown(value: Any) -> str:
    """A setting as people read it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {shown(item)}" for name, item in value.items())
    text = "none" if value is None else str(value)
    return text if text == text.strip() else repr(text)


def described(settings: Mapping[str, Any]) -> str:
    """Settings in one line; those that hold nothing are left out."""
    return ", ".join(f"{name} {shown(value)}" for name, value in settings.items() if value != [])
