"""What several tests of logical isomers say: in distribution, and out of it.

The unit of evidence is the isomer set, not the problem: tellings of one logical form stand or
fall together, so that a set with four domains is not four independent questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .consistency import DEFAULT_CENTER, answer_disagreement, logical_consistency
from .metrics import Values, average, group_by, paired_values
from .records import QuestionRecord
from .representation_file import Representations
from .runs import repetitions
from .statistics import (
    Difference,
    Interval,
    mean_difference,
    mean_interval,
    mean_of,
    paired_difference,
    run_interval,
)
from .summary import average_interval

IN_DISTRIBUTION = ("in_distribution", "no_cue")
OUT_OF_DISTRIBUTION = ("reversed", "unseen_domains", "deeper", "unseen_phrasings")
MEAN = "out_of_distribution"  # the row that sums these up


@dataclass(frozen=True)
class Outcome:
    """One test of one model; the mean over the tests out of distribution has this form too.

    Args:
        sets: Number of isomer sets.
        questions: Number of problems.
        accuracy: avg@k with a 95 % interval over sets.
        worst_domain: The domain with the lowest accuracy (of the mean: with its test).
        worst: Its accuracy. The lowest of several estimates lies somewhat below the truth.
        disagreement: Answer disagreement, None where no set has two domains.
        consistency: Logical Consistency Score, None without representations.
    """

    sets: int
    questions: int
    accuracy: Interval
    worst_domain: str
    worst: Interval
    disagreement: Interval | None
    consistency: Interval | None


def has_tests(questions: Sequence[QuestionRecord]) -> bool:
    """Whether the questions belong to named tests."""
    return any(question.test is not None for question in questions)


def outcomes(
    questions: Sequence[QuestionRecord],
    representations: Representations | None = None,
    center: str = DEFAULT_CENTER,
    seed: int = 0,
) -> dict[str, Outcome]:
    """Every test, in distribution first, and last the mean over the tests out of distribution.

    Choice: the mean gives each test one voice, however many questions it has.

    Args:
        questions: Records; those without a test are not counted.
        representations: Of the same evaluation.
        center: As `logical_consistency` takes it; each test is centred by itself.
        seed: Of the intervals' bootstraps.
    """
    groups = _by_test(questions)
    vectors = {t: representations.of_test(t) for t in groups} if representations else {}
    found = {
        test: _outcome(group, vectors.get(test), center, seed) for test, group in groups.items()
    }
    out = {test: found[test] for test in OUT_OF_DISTRIBUTION if test in found}
    return found | ({MEAN: _mean(out)} if out else {})


def _by_test(questions: Sequence[QuestionRecord]) -> dict[str, list[QuestionRecord]]:
    groups = group_by(questions, lambda q: q.test)
    known = (*IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)
    names = [name for name in known if name in groups]
    names += [str(name) for name in groups if name not in known]
    return {name: groups[name] for name in names}


def _outcome(
    questions: Sequence[QuestionRecord], vectors: Representations | None, center: str, seed: int
) -> Outcome:
    values = [value for _, value in sorted(_set_values(questions).items())]
    domains = group_by(questions, lambda q: q.domain)
    intervals = {str(name): average_interval(group, seed) for name, group in domains.items()}
    worst = min(intervals, key=lambda name: intervals[name].mean)
    comparable = len({(q.isomer_id, q.domain) for q in questions}) > len(
        {q.isomer_id for q in questions}
    )
    return Outcome(
        sets=len(values),
        questions=len(questions),
        accuracy=mean_interval(values, seed=seed),
        worst_domain=worst,
        worst=intervals[worst],
        disagreement=answer_disagreement(questions, seed).score if comparable else None,
        consistency=(
            logical_consistency(vectors, center, seed).score
            if vectors is not None and vectors.places and comparable
            else None
        ),
    )


def _set_values(questions: Sequence[QuestionRecord]) -> dict[str, float]:
    """Mean reward of each isomer set; a question without a set is one by itself."""
    sets: dict[str, list[float]] = {}
    for question in questions:
        sets.setdefault(question.isomer_id or question.id, []).append(average(question))
    return {name: float(np.mean(values)) for name, values in sets.items()}


def _mean(found: Mapping[str, Outcome]) -> Outcome:
    worst = min(found, key=lambda test: found[test].worst.mean)
    return Outcome(
        sets=sum(outcome.sets for outcome in found.values()),
        questions=sum(outcome.questions for outcome in found.values()),
        accuracy=mean_of([outcome.accuracy for outcome in found.values()]),
        worst_domain=f"{found[worst].worst_domain}, {worst}",
        worst=found[worst].worst,
        disagreement=_mean_of_all([outcome.disagreement for outcome in found.values()]),
        consistency=_mean_of_all([outcome.consistency for outcome in found.values()]),
    )


def _mean_of_all(intervals: Sequence[Interval | None]) -> Interval | None:
    """None where one is missing: a mean over fewer tests would be compared with one over all."""
    known = [interval for interval in intervals if interval is not None]
    return mean_of(known) if len(known) == len(intervals) else None


def differences(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord], seed: int = 0
) -> dict[str, Difference]:
    """Paired differences of avg@k for every test that both have, and of the mean out of
    distribution; `Difference.questions` counts isomer sets.

    Raises:
        ValueError: a question has another answer after than before.
    """
    earlier, later = _by_test(before), _by_test(after)
    pairs = {
        test: pair
        for test in earlier
        if test in later and (pair := _paired_sets(earlier[test], later[test])) is not None
    }
    found = {test: paired_difference(*pair, seed=seed) for test, pair in pairs.items()}
    out = [pairs[test] for test in OUT_OF_DISTRIBUTION if test in pairs]
    return found | ({MEAN: mean_difference(out, seed=seed)} if out else {})


def _paired_sets(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord]
) -> tuple[Values, Values] | None:
    ids = {q.id for q in before} & {q.id for q in after}
    if not ids:
        return None
    paired_values(before, after, average)  # refuses questions that have changed
    first, second = (_set_values([q for q in x if q.id in ids]) for x in (before, after))
    names = sorted(first)
    return np.array([first[name] for name in names]), np.array([second[name] for name in names])


@dataclass(frozen=True)
class OverSeeds:
    """Runs that repeat one setting with different seeds, taken together.

    Args:
        runs: Their names.
        tests: Test -> measure (``accuracy``, ``worst``, ``disagreement``, ``consistency``) -> mean
            with its 95 % t-interval over runs.
    """

    runs: tuple[str, ...]
    tests: dict[str, dict[str, Interval]]


def over_seeds(
    names: Sequence[str],
    configs: Sequence[Mapping[str, object]],
    found: Sequence[Mapping[str, Outcome]],
) -> list[OverSeeds]:
    """Every test over the runs that repeat one setting with three or more seeds.

    Args:
        names: Of the runs.
        configs: Their settings, as `runs.Run.config`; runs without any are left out.
        found: `outcomes` of each.
    """
    known = [
        i for i, (config, tests) in enumerate(zip(configs, found, strict=True)) if config and tests
    ]
    result = []
    for group in repetitions([configs[i] for i in known]):
        members = [known[i] for i in group]
        tests = [name for name in found[members[0]] if all(name in found[i] for i in members)]
        result.append(
            OverSeeds(
                tuple(names[i] for i in members),
                {test: _measures([found[i][test] for i in members]) for test in tests},
            )
        )
    return result


def _measures(runs: Sequence[Outcome]) -> dict[str, Interval]:
    measures = {}
    for name in ("accuracy", "worst", "disagreement", "consistency"):
        values = [interval.mean for run in runs if (interval := getattr(run, name)) is not None]
        if len(values) == len(runs):
            measures[name] = run_interval(values)
    return measures
