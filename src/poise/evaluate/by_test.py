"""What several tests of logical isomers say: in distribution, and out of it.

The unit of evidence is the isomer set, not the problem: tellings of one logical form stand or
fall together, so that a set with four domains is not four independent questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .consistency import (
    DEFAULT_CENTER,
    HIGHEST_DISTANCE,
    disagreement_by_set,
    distances_by_set,
    scaled_interval,
)
from .metrics import Values, average, group_by, paired_values
from .records import QuestionRecord
from .representation_file import Representations
from .statistics import Difference, Interval, mean_difference, mean_of
from .summary import average_interval

IN_DISTRIBUTION = ("in_distribution", "no_cue")
OUT_OF_DISTRIBUTION = ("reversed", "unseen_domains", "deeper", "unseen_phrasings")
SetScores = dict[str, float]  # isomer id -> value
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
    scores = {t: _set_scores(group, t, representations, center) for t, group in groups.items()}
    found = {test: _outcome(group, scores[test], seed) for test, group in groups.items()}
    out = [test for test in OUT_OF_DISTRIBUTION if test in found]
    if out:
        found[MEAN] = _mean({t: found[t] for t in out}, [scores[t] for t in out], seed)
    return found


def _by_test(questions: Sequence[QuestionRecord]) -> dict[str, list[QuestionRecord]]:
    groups = group_by(questions, lambda q: q.test)
    known = (*IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)
    names = [name for name in known if name in groups]
    names += [str(name) for name in groups if name not in known]
    return {name: groups[name] for name in names}


def _set_scores(
    questions: Sequence[QuestionRecord], test: str, found: Representations | None, center: str
) -> tuple[SetScores, SetScores, SetScores]:
    """Accuracy, disagreement and distance of each set; none of the latter where none is known."""
    disagreement = {name: x for (_, name), x in disagreement_by_set(questions).items()}
    part = found.of_test(test) if found is not None else None
    distances = distances_by_set(part, center) if part is not None and part.places else {}
    return _accuracy_by_set(questions), disagreement, {n: x for (_, n), x in distances.items()}


def _accuracy_by_set(questions: Sequence[QuestionRecord]) -> SetScores:
    """Mean reward of each isomer set; a question without a set is one by itself."""
    sets: dict[str, list[float]] = {}
    for question in questions:
        sets.setdefault(question.isomer_id or question.id, []).append(average(question))
    return {name: float(np.mean(values)) for name, values in sorted(sets.items())}


def _outcome(
    questions: Sequence[QuestionRecord], scores: Sequence[SetScores], seed: int
) -> Outcome:
    domains = group_by(questions, lambda q: q.domain)
    intervals = {str(name): average_interval(group, seed) for name, group in domains.items()}
    worst = min(intervals, key=lambda name: intervals[name].mean)
    return Outcome(
        len(scores[0]),
        len(questions),
        _accuracy([scores[0]], seed),
        worst,
        intervals[worst],
        *_distances([scores], seed),
    )


def _mean(
    found: Mapping[str, Outcome], scores: Sequence[Sequence[SetScores]], seed: int
) -> Outcome:
    worst = min(found, key=lambda test: found[test].worst.mean)
    return Outcome(
        sum(outcome.sets for outcome in found.values()),
        sum(outcome.questions for outcome in found.values()),
        _accuracy([test[0] for test in scores], seed),
        f"{found[worst].worst_domain}, {worst}",
        found[worst].worst,
        *_distances(scores, seed),
    )


def _accuracy(tests: Sequence[SetScores], seed: int) -> Interval:
    return _mean_interval(tests, 1.0, seed)


def _distances(
    tests: Sequence[Sequence[SetScores]], seed: int
) -> tuple[Interval | None, Interval | None]:
    """None where a test has none: a mean over fewer tests would be compared with one over all."""
    disagreement, distance = ([test[place] for test in tests] for place in (1, 2))
    return (
        _mean_interval(disagreement, 1.0, seed) if all(disagreement) else None,
        _mean_interval(distance, HIGHEST_DISTANCE, seed) if all(distance) else None,
    )


def _mean_interval(tests: Sequence[SetScores], highest: float, seed: int) -> Interval:
    weights, groups = independent_groups(tests)
    return mean_of([scaled_interval(list(g.values()), highest, seed) for g in groups], weights)


def independent_groups(tests: Sequence[SetScores]) -> tuple[list[float], list[SetScores]]:
    """The mean over tests, taken apart into means over groups that share no isomer set.

    Several tests may ask the same logical forms in other words, so that they are no independent
    evidence. Sets that belong to the same tests form a group; a set's value is the mean of its
    scores in them, weighted so that each test has one voice. The weighted mean of the groups'
    means is the mean of the tests' means.

    Returns:
        Weights that sum to 1, and the values of each group by set.
    """
    voice = [1.0 / (len(tests) * len(test)) for test in tests]
    groups: dict[tuple[int, ...], SetScores] = {}
    for name in sorted({name for test in tests for name in test}):
        members = tuple(i for i, test in enumerate(tests) if name in test)
        share = sum(voice[i] for i in members)
        value = sum(voice[i] * tests[i][name] for i in members) / share
        groups.setdefault(members, {})[name] = value
    weights = [len(g) * sum(voice[i] for i in members) for members, g in groups.items()]
    return weights, list(groups.values())


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
    found = {test: _difference([pair], seed) for test, pair in pairs.items()}
    out = [pairs[test] for test in OUT_OF_DISTRIBUTION if test in pairs]
    return found | ({MEAN: _difference(out, seed)} if out else {})


def _paired_sets(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord]
) -> tuple[SetScores, SetScores] | None:
    ids = {q.id for q in before} & {q.id for q in after}
    if not ids:
        return None
    paired_values(before, after, average)  # refuses questions that have changed
    first, second = (_accuracy_by_set([q for q in x if q.id in ids]) for x in (before, after))
    return first, second


def _difference(tests: Sequence[tuple[SetScores, SetScores]], seed: int) -> Difference:
    weights, first = independent_groups([test[0] for test in tests])
    _, second = independent_groups([test[1] for test in tests])
    pairs = [(_values(a), _values(b)) for a, b in zip(first, second, strict=True)]
    return mean_difference(pairs, weights, seed=seed)


def _values(scores: SetScores) -> Values:
    return np.array(list(scores.values()))
