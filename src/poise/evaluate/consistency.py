"""Logical consistency: is a model the same inside, and does it answer the same, in every domain?

Both scores are 0 for a model that the domain does not touch, and lower is better. Neither asks
whether the model is right: a model that always says the same is consistent. Read them beside
accuracy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from .records import QuestionRecord
from .representation_file import Place, Representations
from .statistics import Interval, mean_interval

Vectors = NDArray[np.float64]
SetKey = tuple[str, str]  # test, isomer id
HIGHEST_DISTANCE = 2.0
CENTERS = ("mean", "standard", "none")
DEFAULT_CENTER = "mean"


@dataclass(frozen=True)
class Consistency:
    """A score with what it rests on.

    Args:
        score: Mean over isomer sets with its 95 % interval over sets.
        sets: Number of sets.
        left_out: Sets with one domain only, which have nothing to compare.
    """

    score: Interval
    sets: int
    left_out: int


def logical_consistency(
    found: Representations, center: str = DEFAULT_CENTER, seed: int = 0
) -> Consistency:
    """Logical Consistency Score: mean cosine distance between the domains of an isomer set.

    ``S = mean_sets mean_{i < j} (1 - cos(u_i, u_j))``, u_i = h_i - mean(h): 0 where all domains of
    a set share one direction, about 1 where a set's problems are as unlike as any two problems, at
    most 2.

    Choice: the abstract gives the name and "a measure of representational invariance across
    isomers", no formula; ours is read where the answer is decided (`representations.represent`).
    Choice: vectors are centred by their mean over all problems that are scored together. Hidden
    states of language models share a few huge dimensions, so that without centring any two
    sentences have a cosine near 1 and every model looks consistent; with it, unrelated problems
    lie at a distance of about 1 in every model, and collapse onto one direction earns nothing.
    The mean is over all domains: a shift that a domain adds to all of its problems is a failure
    of invariance, and counts.
    Choice: dimensions keep their own scales, as the model itself reads them; "standard" also
    divides each by its standard deviation, which gives noise in small dimensions an equal voice.

    Args:
        found: Representations, e.g. those of one test (`Representations.of_test`).
        center: "mean", "standard" or "none".
        seed: Of the interval's bootstrap.

    Raises:
        ValueError: another center, a domain twice in a set, or no set with two domains.
    """
    distances = distances_by_set(found, center)
    return _consistency(distances, len(_rows_by_set(found.places)), HIGHEST_DISTANCE, seed)


def distances_by_set(found: Representations, center: str = DEFAULT_CENTER) -> dict[SetKey, float]:
    """The distance of each set with two domains or more, by test and isomer id.

    Raises:
        ValueError: another center, or a domain twice in a set.
    """
    vectors = centered(found.vectors.astype(np.float64), center)
    sets = _rows_by_set(found.places)
    return {key: set_distance(vectors[rows]) for key, rows in sets.items() if len(rows) > 1}


def check_center(center: str) -> None:
    """Raises: ValueError, if there is no such center."""
    if center not in CENTERS:
        raise ValueError(f"center: expected one of {', '.join(CENTERS)}, found {center!r}")


def centered(vectors: Vectors, center: str = DEFAULT_CENTER) -> Vectors:
    """Vectors without what they all share; shape (problems, width).

    Raises:
        ValueError: another center.
    """
    check_center(center)
    if center == "none":
        return vectors
    moved: Vectors = vectors - vectors.mean(axis=0)
    if center == "standard":
        spread = moved.std(axis=0)
        moved = np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0)
    return moved


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


def has_pairs(questions: Sequence[QuestionRecord]) -> bool:
    """Whether some isomer set is told in two domains or more."""
    domains: dict[tuple[str | None, str], str] = {}
    return any(
        domains.setdefault((q.test, q.isomer_id), q.domain) != q.domain
        for q in questions
        if q.isomer_id is not None
    )


def answer_disagreement(questions: Sequence[QuestionRecord], seed: int = 0) -> Consistency:
    """The behavioural twin: how seldom two domains of a set get the same logical answer.

    ``D = mean_sets mean_{i < j} (1 - sum_a p_i(a) p_j(a))`` with p_i(a) the share of the samples
    of problem i whose logical answer is a: the probability that one sample in one domain and one
    in the other disagree. No answer agrees with nothing, not even with no answer.

    With k samples a model that is unsure disagrees with itself; greedy samples (k = 1) leave only
    the difference between domains.

    Args:
        questions: Records of isomers; others are not counted.
        seed: Of the interval's bootstrap.

    Raises:
        ValueError: a domain twice in a set, or no set with two domains.
    """
    isomers = [q for q in questions if q.isomer_id is not None]
    sets = len({(q.test, q.isomer_id) for q in isomers})
    return _consistency(disagreement_by_set(isomers), sets, 1.0, seed)


def disagreement_by_set(questions: Sequence[QuestionRecord]) -> dict[SetKey, float]:
    """The disagreement of each set with two domains or more, by test and isomer id.

    Raises:
        ValueError: a domain twice in a set.
    """
    isomers = [q for q in questions if q.isomer_id is not None]
    places = [Place(q.id, q.isomer_id or "", q.domain, q.test) for q in isomers]
    return {
        key: _disagreement([isomers[row] for row in rows])
        for key, rows in _rows_by_set(places).items()
        if len(rows) > 1
    }


def _disagreement(questions: Sequence[QuestionRecord]) -> float:
    pairs = [1.0 - _agreement(first, second) for first, second in combinations(questions, 2)]
    return sum(pairs) / len(pairs)


def _agreement(first: QuestionRecord, second: QuestionRecord) -> float:
    answers = {answer for answer in first.extracted if answer is not None}
    both = sum(first.extracted.count(a) * second.extracted.count(a) for a in answers)
    return both / (len(first.extracted) * len(second.extracted))


def _rows_by_set(places: Iterable[Place]) -> dict[SetKey, list[int]]:
    """Rows of each set in each test, by domain: the order of the file decides nothing."""
    sets: dict[SetKey, dict[str, int]] = defaultdict(dict)
    for row, place in enumerate(places):
        domains = sets[place.test or "", place.isomer_id]
        if place.domain in domains:
            raise ValueError(
                f"consistency: expected each domain once in a set, found {place.domain!r} twice "
                f"in {place.isomer_id!r}"
            )
        domains[place.domain] = row
    return {
        key: [row for _, row in sorted(domains.items())] for key, domains in sorted(sets.items())
    }


def _consistency(
    scores: Mapping[SetKey, float], sets: int, highest: float, seed: int
) -> Consistency:
    if not scores:
        raise ValueError(
            f"consistency: expected isomer sets with two domains or more, found {sets} sets with "
            "one domain only"
        )
    score = scaled_interval(list(scores.values()), highest, seed)
    return Consistency(score, len(scores), sets - len(scores))


def scaled_interval(values: Sequence[float], highest: float, seed: int = 0) -> Interval:
    """Mean of values in [0, highest] with its interval, as `statistics.mean_interval`."""
    share = mean_interval(np.clip(np.array(values) / highest, 0.0, 1.0), seed=seed)
    mean, low, high = (highest * x for x in (share.mean, share.low, share.high))
    return Interval(mean, low, high, share.method)
