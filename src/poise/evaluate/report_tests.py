"""What the report says of logical isomers: every test, runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .by_test import MEAN, Outcome, differences, outcomes
from .outcome_measures import MEASURES, NONE, Measure, OverSeeds, over_seeds
from .records import Evaluation, QuestionRecord
from .representation_file import Representations
from .runs import Run
from .statistics import Difference


@dataclass(frozen=True)
class TestRow:
    """One test of one run.

    Args:
        test: Its name.
        run: The run's name.
        before: Before training, None where it was not asked.
        after: After training.
        difference: After against before.
        against_first: After against the first run's after.
    """

    __test__ = False  # no test case, whatever its name

    test: str
    run: str
    before: Outcome | None
    after: Outcome | None
    difference: Difference | None
    against_first: Difference | None

    @property
    def sets(self) -> int:
        """Number of isomer sets."""
        return max(outcome.sets for outcome in (self.before, self.after) if outcome is not None)

    @property
    def is_mean(self) -> bool:
        """Whether it sums up the tests out of distribution."""
        return self.test == MEAN

    def further(self) -> list[tuple[str, str]]:
        """Each measure but accuracy, before and after."""
        return [
            (_cell(measure, self.before), _cell(measure, self.after)) for measure in MEASURES[1:]
        ]


def _cell(measure: Measure, outcome: Outcome | None) -> str:
    return NONE if outcome is None else measure.cell(outcome)


def tests_of(runs: Sequence[Run]) -> list[TestRow]:
    """Every test, with the runs below one another; empty where no run has tests."""
    rows = [row for run in runs for row in _rows(run, runs[0])]
    # The mean comes last; otherwise as they are first met.
    names = [*dict.fromkeys(row.test for row in rows if not row.is_mean), MEAN]
    return sorted(rows, key=lambda row: names.index(row.test))


def seeds_of(runs: Sequence[Run]) -> list[OverSeeds]:
    """What the runs that repeat one setting with three or more seeds say together."""
    found = [_outcomes(run.after, run.representations[1]) for run in runs]
    return over_seeds([run.name for run in runs], [run.config for run in runs], found)


def _rows(run: Run, first: Run) -> list[TestRow]:
    before = _outcomes(run.before, run.representations[0])
    after = _outcomes(run.after, run.representations[1])
    change = differences(_questions(run.before), _questions(run.after))
    other = {} if run is first else differences(_questions(first.after), _questions(run.after))
    return [
        TestRow(
            name, run.name, before.get(name), after.get(name), change.get(name), other.get(name)
        )
        for name in dict.fromkeys([*after, *before])
    ]


def _outcomes(evaluation: Evaluation | None, vectors: Representations | None) -> dict[str, Outcome]:
    return outcomes(_questions(evaluation), vectors)


def _questions(evaluation: Evaluation | None) -> Sequence[QuestionRecord]:
    return evaluation.questions if evaluation else ()
