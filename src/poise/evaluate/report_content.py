"""What the report says, as plain values: results, groups, settings, samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .metrics import average, group_by
from .records import Evaluation, QuestionRecord
from .runs import NAMES, Run
from .statistics import Difference, Interval
from .summary import (
    OverRuns,
    Summary,
    average_interval,
    compare,
    described,
    over_runs,
    shown,
    summarise,
)

_UNKNOWN = "–"
SAMPLES = 6  # questions whose completions are shown for each run


@dataclass(frozen=True)
class Result:
    """Accuracy of one run, before and after, and after against the first run's after.

    What is missing is None. `unlike` names what the evaluations before and after do not share,
    so that their difference has another cause than training too.
    """

    run: Run
    before: Summary | None
    after: Summary | None
    difference: Difference | None
    against_first: Difference | None = None
    unlike: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupRow:
    """Accuracy of one run in one group of questions."""

    run: str
    group: str
    questions: int
    before: Interval | None
    after: Interval | None
    difference: Difference | None


@dataclass(frozen=True)
class Setting:
    """A setting of all runs, with whether they differ in it."""

    name: str
    values: tuple[str, ...]
    differs: bool


@dataclass(frozen=True)
class Sample:
    """One question with a completion before and one after."""

    before: QuestionRecord | None
    after: QuestionRecord | None

    @property
    def question(self) -> QuestionRecord:
        """The question itself."""
        found = self.after or self.before
        assert found is not None  # `choose_samples` makes none without records
        return found

    @property
    def change(self) -> float:
        """Rise of the mean reward, 0 where one side is missing."""
        if self.before is None or self.after is None:
            return 0.0
        return average(self.after) - average(self.before)


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Every setting of every run; those that differ come first."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    settings = []
    for name in names:
        values = tuple(shown(run.config[name]) if name in run.config else _UNKNOWN for run in runs)
        differs = len(set(values)) > 1 and name.rpartition(".")[2] not in NAMES
        settings.append(Setting(name, values, differs))
    return sorted(settings, key=lambda setting: not setting.differs)


def choose_samples(run: Run, count: int = SAMPLES) -> list[Sample]:
    """Questions to show: a third that rose most, a third that fell most, a third in between.

    Choice: the first sample of a question is shown, not the best one.
    """
    before = _by_id(run.before)
    after = _by_id(run.after)
    ids = [i for i in after if i in before] if before and after else [*after, *before]
    samples = sorted((Sample(before.get(i), after.get(i)) for i in ids), key=lambda s: -s.change)
    if len(samples) <= count:
        return samples
    third = count // 3
    middle = (len(samples) - third) // 2
    return [*samples[:third], *samples[middle : middle + third], *samples[-third:]]


def _by_id(evaluation: Evaluation | None) -> dict[str, QuestionRecord]:
    return {q.id: q for q in evaluation.questions} if evaluation else {}


def results_of(runs: Sequence[Run]) -> list[Result]:
    """Accuracy of every run in numbers."""
    return [_result(run, runs[0]) for run in runs]


def repeated(results: Sequence[Result]) -> list[OverRuns]:
    """What training changes over seeds, where three or more runs share a setting."""
    runs = [result.run for result in results]
    names, configs = [run.name for run in runs], [run.config for run in runs]
    return over_runs(names, configs, [result.difference for result in results])


def _result(run: Run, first: Run) -> Result:
    before, after = _questions(run.before), _questions(run.after)
    return Result(
        run,
        summarise(before) if before else None,
        summarise(after) if after else None,
        _difference(before, after),
        None if run is first else _difference(_questions(first.after), after),
        _unlike(run.before, run.after),
    )


def _unlike(before: Evaluation | None, after: Evaluation | None) -> tuple[str, ...]:
    if before is None or after is None:
        return ()
    the_point = {"adapter", "weights", "model"}
    return tuple(x for x in before.header.conflicts(after.header) if x not in the_point)


def _difference(
    before: Sequence[QuestionRecord], after: Sequence[QuestionRecord]
) -> Difference | None:
    common = {q.id for q in before} & {q.id for q in after}
    return compare(before, after) if common else None


def _questions(evaluation: Evaluation | None) -> Sequence[QuestionRecord]:
    return evaluation.questions if evaluation else ()


def groups_of(run: Run, key: Callable[[QuestionRecord], str | int | None]) -> list[GroupRow]:
    """Accuracy by a property of the questions; empty where all share it."""
    before, after = group_by(_questions(run.before), key), group_by(_questions(run.after), key)
    rows = []
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, []), after.get(name, [])
        rows.append(
            GroupRow(
                run.name,
                str(name),
                len(second or first),
                average_interval(first) if first else None,
                average_interval(second) if second else None,
                _difference(first, second),
            )
        )
    # One group of all questions is what the table above says already.
    return rows if len(rows) > 1 else []


def facts_of(runs: Sequence[Run]) -> list[Setting]:
    """What was run, in a few lines."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        for name, value in _run_facts(run).items():
            rows.setdefault(name, []).append(value or _UNKNOWN)
    own = ("Folder", "Started")  # differ between any two runs
    return [
        Setting(name, tuple(values), name not in own and len({*values} - {_UNKNOWN}) > 1)
        for name, values in rows.items()
    ]


def _run_facts(run: Run) -> dict[str, str]:
    header = next((e.header for e in (run.after, run.before) if e is not None), None)
    evaluated = f"{header.dataset}, {header.split}" if header else ""
    software = {k: v for k, v in run.versions.items() if k != "started"}
    software = software or dict(header.versions if header else {})
    return {
        "Folder": str(run.path),
        "Model": _setting(run, "model_name_or_path") or (header.model if header else ""),
        "Trained on": ", ".join(filter(None, (_setting(run, "dataset"), _setting(run, "split")))),
        "Steps": str(run.last_step) if run.metrics else "",
        "Seed": _setting(run, "seed"),
        "Started": run.versions.get("started", ""),
        "Evaluated on": evaluated,
        "Sampling": described({**header.sampling, "seed": header.seed}) if header else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in software.items()),
    }


def _setting(run: Run, name: str) -> str:
    """A setting by its last name, whatever section it is in."""
    for full, value in run.config.items():
        if full.rpartition(".")[2] == name and value is not None:
            return shown(value)
    return ""
