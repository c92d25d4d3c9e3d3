"""Logical isomers: is a model right, the same inside, and the same in its answers, in every domain?

The unit of evidence is the isomer set, not the problem: versions of one logical form stand or fall
together. Both scores of consistency are 0 for a model that the domain does not touch, and lower is
better. Neither asks whether the model is right: one that always says the same is consistent. Read
them beside accuracy.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from .measures import Questions, average, average_interval, common, group_by, percent
from .records import Place, QuestionRecord, Representations
from .runs import NAMES
from .statistics import (
    Difference,
    Interval,
    mean_difference,
    mean_interval,
    mean_of,
    run_interval,
)

T = TypeVar("T")
Vectors = NDArray[np.float64]
SetKey = tuple[str, str]  # test, isomer id
SetScores = dict[str, float]  # isomer id -> value
HIGHEST_DISTANCE = 2.0
IN_DISTRIBUTION = ("in_distribution", "no_cue")
OUT_OF_DISTRIBUTION = ("reversed", "unseen_domains", "deeper", "unseen_phrasings")
MEAN = "out_of_distribution"  # the row that sums these up
NONE = "–"


@dataclass(frozen=True)
class Consistency:
    """A score with its 95 % interval over isomer sets, and how many sets it rests on.

    Sets with one domain have nothing to compare, and are left out.
    """

    score: Interval
    sets: int
    left_out: int


def logical_consistency(found: Representations) -> Consistency:
    """Logical Consistency Score: mean cosine distance between the domains of an isomer set.

    ``S = mean_sets mean_{i < j} (1 - cos(u_i, u_j))``, u_i = h_i - mean(h): 0 where all domains of
    a set share one direction, about 1 where a set's problems are as unlike as any two problems, at
    most 2.

    Choice: the abstract gives the name and "a measure of representational invariance across
    isomers", no formula; ours is read where the answer is decided (`represent.represent`).
    Choice: vectors are centred by their mean over all problems that are scored together, of all
    domains. Hidden states share a few huge dimensions, so that without it every model looks
    consistent; with it, unrelated problems lie about 1 apart, and a domain's shift counts.
    Choice: dimensions keep their scales, so that noise in small ones has no equal voice.

    Raises:
        ValueError: A domain twice in a set, or no set with two domains.
    """
    return _consistency(*_distances(found), HIGHEST_DISTANCE)


def answer_disagreement(questions: Questions) -> Consistency:
    """The behavioural twin: how seldom two domains of a set get the same logical answer.

    ``D = mean_sets mean_{i < j} (1 - sum_a p_i(a) p_j(a))`` with p_i(a) the share of the samples
    of problem i whose logical answer is a: the probability that one sample in one domain and one
    in the other disagree. No answer agrees with nothing, not even with no answer.

    With k samples a model that is unsure disagrees with itself; greedy samples (k = 1) leave only
    the difference between domains. Questions that are no isomers do not count.

    Raises:
        ValueError: A domain twice in a set, or no set with two domains.
    """
    return _consistency(*_disagreements(questions), 1.0)


def _consistency(scores: dict[SetKey, float], left_out: int, highest: float) -> Consistency:
    if not scores:
        raise ValueError(
            f"consistency: expected isomer sets with two domains or more, found {left_out} sets "
            "with one domain only"
        )
    return Consistency(mean_interval(list(scores.values()), highest), len(scores), left_out)


def has_pairs(questions: Questions) -> bool:
    """Whether some isomer set has two domains or more."""
    return bool(_disagreements(questions)[0])


def _distances(found: Representations) -> tuple[dict[SetKey, float], int]:
    vectors = centered(found.vectors.astype(np.float64))
    return _over_sets(found.places, lambda rows: set_distance(vectors[rows]))


def _disagreements(questions: Questions) -> tuple[dict[SetKey, float], int]:
    def disagreement(first: int, second: int) -> float:
        a, b = questions[first].extracted, questions[second].extracted
        agree = sum(a.count(answer) * b.count(answer) for answer in {*a} - {None})
        return 1.0 - agree / (len(a) * len(b))

    return _over_sets(
        questions, lambda rows: fmean(disagreement(*pair) for pair in combinations(rows, 2))
    )


def _over_sets(
    problems: Iterable[Place | QuestionRecord], measure: Callable[[list[int]], float]
) -> tuple[dict[SetKey, float], int]:
    """A measure of the rows of each set with two domains or more, and how many sets have one.

    Rows go by domain: the order of the file decides nothing.
    """
    sets: dict[SetKey, dict[str, int]] = defaultdict(dict)
    for row, problem in enumerate(problems):
        if problem.isomer_id is None:
            continue
        domains = sets[problem.test or "", problem.isomer_id]
        if problem.domain in domains:
            raise ValueError(
                f"consistency: expected each domain once in a set, found {problem.domain!r} twice "
                f"in {problem.isomer_id!r}"
            )
        domains[problem.domain] = row
    paired = {key: rows for key, rows in sorted(sets.items()) if len(rows) > 1}
    found = {key: measure([rows[x] for x in sorted(rows)]) for key, rows in paired.items()}
    return found, len(sets) - len(paired)


def centered(vectors: Vectors) -> Vectors:
    """Vectors without what they all share; shape (problems, width)."""
    result: Vectors = vectors - vectors.mean(axis=0)
    return result


def set_distance(vectors: Vectors) -> float:
    """Mean of ``1 - cos`` over all pairs of rows, shape (domains, width), two rows or more.

    Choice: two zero vectors are equal, so that their distance is 0; a zero vector is at distance 1
    from any other.
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    # A further coordinate makes zero vectors equal to each other and to nothing else.
    units = np.hstack([units, norms == 0])
    # Of unit vectors 1 - cos is half the squared distance, which is exactly 0 for equal ones.
    return float(pdist(units, "sqeuclidean").mean() / 2.0)


@dataclass(frozen=True)
class Outcome:
    """One test of one model; the mean over the tests out of distribution has this form too."""

    sets: int
    questions: int
    accuracy: Interval  # avg@k, over sets
    worst_domain: str  # the one with the lowest accuracy (of the mean: with its test)
    worst: Interval  # its accuracy, which as the lowest of several lies somewhat below the truth
    disagreement: Interval | None  # None where no set has two domains
    consistency: Interval | None  # None without representations


def outcomes(
    questions: Questions, representations: Representations | None = None
) -> dict[str, Outcome]:
    """Every test, in distribution first, and last the mean over the tests out of distribution.

    Choice: the mean gives each test one voice; each test's representations are centred by
    themselves. Questions without a test do not count.
    """
    found: dict[str, Outcome] = {}
    scores: dict[str, tuple[SetScores, ...]] = {}
    for test, group in _by_test(questions).items():
        part = representations and representations.of_test(test)
        pairs = _disagreements(group)[0], _distances(part)[0] if part and part.places else {}
        by_set = ({name: x for (_, name), x in one.items()} for one in pairs)
        scores[test] = _accuracy_by_set(group), *by_set
        domains = group_by(group, lambda q: q.domain)
        rates = ((str(name), average_interval(members)) for name, members in domains.items())
        found[test] = _outcome([scores[test]], group, *min(rates, key=lambda rate: rate[1].mean))
    if out := [test for test in OUT_OF_DISTRIBUTION if test in found]:
        worst = min(out, key=lambda test: found[test].worst.mean)
        name = f"{found[worst].worst_domain}, {worst}"
        asked = [q for q in questions if q.test in out]
        found[MEAN] = _outcome([scores[x] for x in out], asked, name, found[worst].worst)
    return found


def _outcome(
    tests: Sequence[tuple[SetScores, ...]], asked: Questions, domain: str, worst: Interval
) -> Outcome:
    """Of tests, each with accuracy, disagreement and distance by set, empty where not known."""
    means: list[Interval | None] = []
    for scores, highest in zip(zip(*tests, strict=True), (1.0, 1.0, HIGHEST_DISTANCE), strict=True):
        weights, groups = independent_groups(scores) if all(scores) else ([], [])
        intervals = [mean_interval(list(group.values()), highest) for group in groups]
        # A mean over fewer tests would be compared with one over all.
        means.append(mean_of(intervals, weights) if intervals else None)
    accuracy, disagreement, distance = means
    assert accuracy is not None  # a test has questions
    sets = sum(len(test[0]) for test in tests)
    return Outcome(sets, len(asked), accuracy, domain, worst, disagreement, distance)


def _by_test(questions: Questions) -> dict[str, list[QuestionRecord]]:
    groups = group_by(questions, lambda q: q.test)
    known = (*IN_DISTRIBUTION, *OUT_OF_DISTRIBUTION)
    names = [*(x for x in known if x in groups), *(str(x) for x in groups if x not in known)]
    return {name: groups[name] for name in names}


def _accuracy_by_set(questions: Questions) -> SetScores:
    """Mean reward of each isomer set; a question without a set is one by itself."""
    sets = group_by(questions, lambda q: q.isomer_id or q.id)
    return {str(name): fmean(map(average, group)) for name, group in sets.items()}


def independent_groups(tests: Sequence[SetScores]) -> tuple[list[float], list[SetScores]]:
    """The mean over tests, taken apart into means over groups that share no isomer set.

    Tests that ask the same logical forms in other words are no independent evidence. Sets of the
    same tests form a group; a set's value is the mean of its scores in them, weighted so that each
    test has one voice. The weighted mean of the groups' means is that of the tests' means.

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


def differences(before: Questions, after: Questions) -> dict[str, Difference]:
    """Paired differences of avg@k for every test that both have, and of the mean out of
    distribution; `Difference.questions` counts isomer sets.

    Raises:
        ValueError: A question has another answer after than before.
    """
    earlier, later = _by_test(before), _by_test(after)
    sides: dict[str, tuple[SetScores, SetScores]] = {}
    for test in earlier:
        if pairs := common(earlier[test], later.get(test, [])):
            first, second = ([pair[side] for pair in pairs] for side in (0, 1))
            sides[test] = _accuracy_by_set(first), _accuracy_by_set(second)

    def difference(tests: Sequence[str]) -> Difference:
        weights, first = independent_groups([sides[test][0] for test in tests])
        _, second = independent_groups([sides[test][1] for test in tests])
        values = [[np.array([*g.values()]) for g in groups] for groups in (first, second)]
        return mean_difference(list(zip(*values, strict=True)), weights)

    found = {test: difference([test]) for test in sides}
    out = [test for test in OUT_OF_DISTRIBUTION if test in sides]
    return found | ({MEAN: difference(out)} if out else {})


@dataclass(frozen=True)
class Measure:
    """A measure of an `Outcome` as people read it: its field, its title, how it is written."""

    name: str
    title: str
    show: Callable[[Interval], str] = percent

    def text(self, interval: Interval | None) -> str:
        return NONE if interval is None else self.show(interval)

    def cell(self, outcome: Outcome | None) -> str:
        """The measure of an outcome, with the domain where it is that of one."""
        text = self.text(getattr(outcome, self.name, None))
        return f"{text} ({outcome.worst_domain})" if outcome and self.name == "worst" else text


def _distance(score: Interval) -> str:
    return f"{score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]"


MEASURES = (
    Measure("accuracy", "Accuracy by test, avg@k, %"),
    Measure("worst", "Worst domain, avg@k, %"),
    Measure("disagreement", "Answer disagreement, %"),
    Measure("consistency", "Logical Consistency Score", _distance),
)


def title_of(test: str) -> str:
    """A test's name as people read it."""
    return "mean out of distribution" if test == MEAN else test.replace("_", " ")


# Runs that repeat one setting with different seeds: here the unit of evidence is the run.
Names = tuple[str, ...]  # of the runs of a group
Settings = Sequence[tuple[str, Mapping[str, Any]]]  # each run's name, and `Run.config`
_SEEDS = ("seed", "data_seed", "question_seed")
_LEAST = 3  # runs that an interval over seeds is worth writing for


def over_seeds(runs: Settings, found: Sequence[T | None]) -> list[tuple[Names, list[T]]]:
    """Groups of three or more runs that differ in their seeds alone, with what each has found.

    Runs without settings, or with nothing found, are left out.
    """
    groups: dict[str, dict[str, tuple[str, T]]] = {}
    for (run, config), one in zip(runs, found, strict=True):
        if not config or not one:
            continue
        setting_of: dict[str, Any] = {}
        seeds_of: dict[str, Any] = {}
        for name, value in sorted(config.items()):
            if (last := name.rpartition(".")[2]) in _SEEDS:
                seeds_of[name] = value
            elif last not in NAMES:
                setting_of[name] = value
        setting, seeds = (json.dumps(part, default=str) for part in (setting_of, seeds_of))
        # A run that was made twice is no second piece of evidence.
        groups.setdefault(setting, {}).setdefault(seeds, (run, one))
    whole = [list(group.values()) for group in groups.values() if len(group) >= _LEAST]
    return [(tuple(run for run, _ in group), [one for _, one in group]) for group in whole]


def changes_over_seeds(
    runs: Settings, changes: Sequence[Difference | None]
) -> list[tuple[Names, Interval]]:
    """Of each group the mean of what training changed, with its t-interval over runs."""
    groups = over_seeds(runs, changes)
    return [(names, run_interval([x.interval.mean for x in found])) for names, found in groups]


def outcomes_over_seeds(
    runs: Settings, outcomes: Sequence[Mapping[str, Outcome]]
) -> list[tuple[Names, dict[str, dict[str, Interval]]]]:
    """Of each group the tests that all have: measure -> mean with its t-interval over runs."""
    result = []
    for names, group in over_seeds(runs, outcomes):
        tests: dict[str, dict[str, Interval]] = {}
        for test in (name for name in group[0] if all(name in one for one in group)):
            columns = {m.name: [getattr(one[test], m.name) for one in group] for m in MEASURES}
            tests[test] = {
                name: run_interval([interval.mean for interval in column])
                for name, column in columns.items()
                if None not in column
            }
        result.append((names, tests))
    return result
