"""Rules that have to hold of a task before methods are compared on it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .experiment import METHOD, Experiment, Rule, Run
from .results import Record


@dataclass(frozen=True)
class Verdict:
    """What came of a rule."""

    rule: Rule
    mean: float | None  # of the figure over the runs that are done
    missing: int  # runs that are not

    @property
    def holds(self) -> bool:
        """Whether the mean lies within the bounds, with no run missing."""
        if self.mean is None or self.missing:
            return False
        low, high = self.rule.at_least, self.rule.at_most
        return (low is None or self.mean >= low) and (high is None or self.mean <= high)

    def __str__(self) -> str:
        rule = self.rule
        bounds = (("at least", rule.at_least), ("at most", rule.at_most))
        expected = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)
        found = "nothing" if self.mean is None else f"{self.mean:.3g}"
        if self.missing:
            found += f", {self.missing} runs missing"
        return f"{rule.figure} of {rule.method}: expected {expected}, found {found}"


def ruled(experiment: Experiment, run: Run) -> bool:
    """Whether a rule looks at this run."""
    return run.place[METHOD] in {rule.method for rule in experiment.validity}


def verdicts(experiment: Experiment, records: Mapping[str, Record]) -> list[Verdict]:
    """One a rule.

    Raises:
        ValueError: a result has no such figure.
    """
    found = []
    for rule in experiment.validity:
        runs = [run for run in experiment.runs() if run.place[METHOD] == rule.method]
        done = [run for run in runs if run.key in records]
        for run in done:
            if rule.figure not in records[run.key]["figures"]:
                raise ValueError(f"validity: no figure {rule.figure!r} in the result of {run}")
        values = [float(records[run.key]["figures"][rule.figure]) for run in done]
        mean = statistics.fmean(values) if values else None
        found.append(Verdict(rule, mean, len(runs) - len(done)))
    return found


def require(experiment: Experiment, records: Mapping[str, Record]) -> None:
    """Refuse to compare methods on a task that does not show what it is to show.

    Raises:
        ValueError: a rule does not hold.
    """
    broken = [verdict for verdict in verdicts(experiment, records) if not verdict.holds]
    if broken:
        is_known = not any(verdict.missing for verdict in broken)
        state = "does not hold" if is_known else "is not known yet"
        raise ValueError(
            f"{experiment.name}: its validity rule {state}, so no other run is begun: "
            f"{'; '.join(map(str, broken))}"
        )
