"""What one evaluation amounts to, and what changed between two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import metrics
from .records import QuestionRecord
from .statistics import Difference, Interval, mean_interval, paired_difference


@dataclass(frozen=True)
class Summary:
    """An evaluation in numbers, all rates in [0, 1] with 95 % intervals over questions.

    Args:
        questions: How many.
        k: Samples per question.
        average: avg@k.
        passed: pass@k.
        majority: maj@k.
        format: Share of samples with an answer.
        passes: pass@j for j = 1, 2, 4, ... up to k.
        finished: Share of samples that ended by themselves.
        length: Mean length of a sample in tokens.
    """

    questions: int
    k: int
    average: Interval
    passed: Interval
    majority: Interval
    format: Interval
    passes: dict[int, float]
    finished: float
    length: float

    def as_json(self) -> dict[str, Any]:
        """Plain numbers by name."""
        return asdict(self)


def summarise(questions: Sequence[QuestionRecord], seed: int = 0) -> Summary:
    """All measures of an evaluation.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("summary: expected one or more questions, found none")
    k = metrics.samples_per_question(questions)

    def interval(measure: metrics.Measure) -> Interval:
        return mean_interval(metrics.values(questions, measure), seed=seed)

    def mean(measure: metrics.Measure) -> float:
        return float(metrics.values(questions, measure).mean())

    powers = sorted({2**i for i in range(k.bit_length())} | {k})
    return Summary(
        questions=len(questions),
        k=k,
        average=interval(metrics.average),
        passed=interval(metrics.pass_at(k)),
        majority=interval(metrics.majority),
        format=interval(metrics.format_rate),
        passes={j: mean(metrics.pass_at(j)) for j in powers},
        finished=mean(metrics.finished_rate),
        length=mean(metrics.mean_length),
    )


def average_interval(questions: Sequence[QuestionRecord], seed: int = 0) -> Interval:
    """avg@k with its interval."""
    return mean_interval(metrics.values(questions, metrics.average), seed=seed)


def compare(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord], seed: int = 0
) -> Difference:
    """Paired difference of avg@k, after minus before, on the questions that both have.

    Raises:
        ValueError: they have none in common.
    """
    return paired_difference(*metrics.paired_values(before, after, metrics.average), seed=seed)
