"""What one evaluation amounts to, what changed between two, and how people read the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import metrics
from .records import QuestionRecord
from .runs import repetitions
from .statistics import Difference, Interval, mean_interval, paired_difference, run_interval


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


@dataclass(frozen=True)
class OverRuns:
    """The difference that a setting makes, over runs with different seeds.

    Args:
        runs: Their names.
        interval: Mean of their paired differences, with its 95 % t-interval over runs.
    """

    runs: tuple[str, ...]
    interval: Interval


def over_runs(
    names: Sequence[str],
    configs: Sequence[Mapping[str, Any]],
    differences: Sequence[Difference | None],
) -> list[OverRuns]:
    """What the runs that repeat one setting with three or more seeds say together.

    Args:
        names: Of the runs.
        configs: Their settings, as `runs.Run.config`; runs without any are left out.
        differences: Their paired differences; runs without one are left out.
    """
    pairs = zip(configs, differences, strict=True)
    known = [i for i, (config, difference) in enumerate(pairs) if config and difference]
    result = []
    for group in repetitions([configs[i] for i in known]):
        found = [(names[known[i]], differences[known[i]]) for i in group]
        means = [difference.interval.mean for _, difference in found if difference is not None]
        result.append(OverRuns(tuple(name for name, _ in found), run_interval(means)))
    return result


def percent(interval: Interval) -> str:
    """A rate in percent with its interval: ``52.7 [48.0, 57.4]``."""
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A difference of rates in percentage points: ``+20.7 [+17.3, +24.0]``."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def distance(interval: Interval) -> str:
    """A score on its own scale: ``0.142 [0.120, 0.165]``."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


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
