"""One self-contained HTML page about one or several training runs.

The page needs no other file, no network and no script. It is made from saved records only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2

import poise

from . import plots
from .isomers import MEAN, MEASURES, Outcome, differences, outcomes, title_of
from .measures import (
    Questions,
    Summary,
    average,
    average_interval,
    compare,
    described,
    group_by,
    p_value,
    percent,
    points,
    shown,
    summarise,
)
from .records import QuestionRecord
from .runs import NAMES, Run
from .seeds import changes_over_seeds, outcomes_over_seeds
from .statistics import Difference, Interval

_UNKNOWN = "–"
SAMPLES = 6  # questions whose completions are shown for each run


@dataclass(frozen=True)
class Result:
    """Accuracy of one run before and after, and after against the first run's; None is missing.

    In what is `unlike`, the evaluations before and after differ beside the model.
    """

    run: Run
    before: Summary | None
    after: Summary | None
    difference: Difference | None
    against_first: Difference | None
    unlike: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One run in a group of `size` questions, by accuracy, or in a test of `size` isomer sets."""

    run: str
    name: str
    size: int
    before: Interval | Outcome | None
    after: Interval | Outcome | None
    difference: Difference | None
    against_first: Difference | None = None


@dataclass(frozen=True)
class Setting:
    """A setting of all runs, and whether they differ in it."""

    name: str
    values: tuple[str, ...]
    differs: bool


@dataclass(frozen=True)
class Sample:
    """One question with a completion before and one after; one side may be None."""

    before: QuestionRecord | None
    after: QuestionRecord | None

    @property
    def question(self) -> QuestionRecord:
        found = self.after or self.before
        assert found is not None  # `choose_samples` makes none without records
        return found

    @property
    def change(self) -> float:
        """Rise of the mean reward, 0 where one side is missing."""
        if self.before is None or self.after is None:
            return 0.0
        return average(self.after) - average(self.before)


def write_report(runs: Sequence[Run], output: str | Path) -> Path:
    """Write the page; its folder is made where it is missing."""
    path = Path(output)
    page = render_report(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def render_report(runs: Sequence[Run]) -> str:
    """The page of one or more runs as text."""
    results = [_result(run, runs[0]) for run in runs]
    before, after = (
        [outcomes(run.answers[side], run.representations[side]) for run in runs] for side in (0, 1)
    )
    configs = [(run.name, run.config) for run in runs]
    curves = [
        ("Accuracy on unseen questions", plots.draw_accuracy(runs)),
        *((panel.title, plots.draw(panel, [run])) for run, panel in plots.domain_losses(runs)),
        *((panel.title, plots.draw(panel, runs)) for panel in plots.panels_of(runs)),
    ]
    template = environment("poise.evaluate").get_template("report.html.j2")
    return template.render(
        runs=runs,
        results=results,
        repeated=changes_over_seeds(configs, [result.difference for result in results]),
        domains=[row for run in runs for row in _groups(run, lambda q: q.domain)],
        levels=[row for run in runs for row in _groups(run, lambda q: q.level)],
        tests=_test_rows(runs, before, after),
        seeds=outcomes_over_seeds(configs, after),
        measures=MEASURES,
        mean=MEAN,
        curves=[(title, picture) for title, picture in curves if picture],
        not_logged=[title for title, picture in curves if not picture],
        layers=[(run, picture) for run in runs if (picture := plots.draw_layers(run))],
        settings=settings_of(runs),
        facts=_facts(runs),
        samples=[(run, choose_samples(run)) for run in runs],
        version=poise.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def environment(package: str) -> jinja2.Environment:
    """What fills in the templates of a package's pages."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    filters = {"percent": percent, "points": points, "p_value": p_value, "title_of": title_of}
    environment.filters |= filters
    return environment


def _result(run: Run, first: Run) -> Result:
    before, after = run.answers
    unlike = run.before.header.conflicts(run.after.header) if run.before and run.after else []
    return Result(
        run,
        summarise(before) if before else None,
        summarise(after) if after else None,
        _difference(before, after),
        None if run is first else _difference(first.answers[1], after),
        tuple(name for name in unlike if name not in ("adapter", "weights", "model")),
    )


def _difference(before: Questions, after: Questions) -> Difference | None:
    are_paired = not {q.id for q in before}.isdisjoint(q.id for q in after)
    return compare(before, after) if are_paired else None


def _groups(run: Run, key: Callable[[QuestionRecord], str | int | None]) -> list[Row]:
    """Accuracy by a property of the questions; empty where all share it."""
    before, after = (group_by(questions, key) for questions in run.answers)
    rows: list[Row] = []
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, []), after.get(name, [])
        rows.append(
            Row(
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


def _test_rows(
    runs: Sequence[Run],
    before: Sequence[dict[str, Outcome]],
    after: Sequence[dict[str, Outcome]],
) -> list[Row]:
    """Every test, with the runs below one another; empty where no run has tests."""
    rows: list[Row] = []
    for run, first, second in zip(runs, before, after, strict=True):
        change = differences(*run.answers)
        other = {} if run is runs[0] else differences(runs[0].answers[1], run.answers[1])
        for name in dict.fromkeys([*second, *first]):
            sides = first.get(name), second.get(name)
            sets = max(outcome.sets for outcome in sides if outcome is not None)
            rows.append(Row(run.name, name, sets, *sides, change.get(name), other.get(name)))
    # The mean comes last; otherwise as they are first met.
    names = [*dict.fromkeys(row.name for row in rows if row.name != MEAN), MEAN]
    return sorted(rows, key=lambda row: names.index(row.name))


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Every setting of every run; those that differ come first."""
    settings = []
    for name in dict.fromkeys(name for run in runs for name in run.config):
        values = tuple(shown(run.config[name]) if name in run.config else _UNKNOWN for run in runs)
        differs = len(set(values)) > 1 and name.rpartition(".")[2] not in NAMES
        settings.append(Setting(name, values, differs))
    return sorted(settings, key=lambda setting: not setting.differs)


def _facts(runs: Sequence[Run]) -> list[Setting]:
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
    # By the last part of their names, whatever section they are in.
    settings = {
        name.rpartition(".")[2]: shown(value)
        for name, value in reversed(list(run.config.items()))
        if value is not None
    }
    header = next((e.header for e in (run.after, run.before) if e is not None), None)
    software = {k: v for k, v in run.versions.items() if k != "started"}
    software = software or dict(header.versions if header else {})
    data = (settings.get(name) for name in ("dataset_name", "dataset_train_split"))
    return {
        "Folder": str(run.path),
        "Model": settings.get("model_name_or_path") or (header.model if header else ""),
        "Trained on": ", ".join(filter(None, data)),
        "Steps": str(run.last_step) if run.metrics else "",
        "Seed": settings.get("seed", ""),
        "Started": run.versions.get("started", ""),
        "Evaluated on": f"{header.dataset}, {header.split}" if header else "",
        "Sampling": described({**header.sampling, "seed": header.seed}) if header else "",
        "Versions": ", ".join(f"{name} {version}" for name, version in software.items()),
    }


def choose_samples(run: Run, count: int = SAMPLES) -> list[Sample]:
    """Questions to show: a third that rose most, a third that fell most, a third in between.

    Choice: the first sample of a question is shown, not the best one.
    """
    before, after = ({q.id: q for q in questions} for questions in run.answers)
    ids = [i for i in after if i in before] if before and after else [*after, *before]
    samples = sorted((Sample(before.get(i), after.get(i)) for i in ids), key=lambda s: -s.change)
    if len(samples) <= count:
        return samples
    third = count // 3
    middle = (len(samples) - third) // 2
    return [*samples[:third], *samples[middle : middle + third], *samples[-third:]]
