"""One self-contained HTML page about one or several training runs.

The page needs no other file, no network and no script. It is made from saved records only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

import poise

from . import plots
from .isomers import (
    MEAN,
    MEASURES,
    Outcome,
    changes_over_seeds,
    differences,
    outcomes,
    outcomes_over_seeds,
    title_of,
)
from .measures import (
    Questions,
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
from .statistics import Difference, Interval

_UNKNOWN = "–"
SAMPLES = 6  # questions whose completions are shown for each run


class Row(NamedTuple):
    """One run in a group of `size` questions, by accuracy, or in a test of `size` isomer sets."""

    run: str
    name: str | int
    size: int
    before: Interval | Outcome | None
    after: Interval | Outcome | None
    difference: Difference | None
    against_first: Difference | None = None


@dataclass(frozen=True)
class Sample:
    """One question with a completion before and one after; one side may be None."""

    question: QuestionRecord
    before: QuestionRecord | None
    after: QuestionRecord | None


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
        repeated=changes_over_seeds(configs, [result["difference"] for result in results]),
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
        facts=side_by_side([_facts(run) for run in runs], ("Folder", "Started"), {_UNKNOWN}),
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


def _result(run: Run, first: Run) -> dict[str, Any]:
    """Accuracy before and after, and after against the first run's; None is missing."""
    before, after = run.answers
    differ = run.before.header.conflicts(run.after.header) if run.before and run.after else {}
    return {
        "run": run,
        "before": summarise(before) if before else None,
        "after": summarise(after) if after else None,
        "difference": _difference(before, after),
        "against_first": None if run is first else _difference(first.answers[1], after),
        "unlike": [name for name in differ if name not in ("adapter", "weights", "model")],
    }


def _difference(before: Questions, after: Questions) -> Difference | None:
    are_paired = not {q.id for q in before}.isdisjoint(q.id for q in after)
    return compare(before, after) if are_paired else None


def _groups(run: Run, key: Callable[[QuestionRecord], str | int | None]) -> list[Row]:
    """Accuracy by a property of the questions; empty where all share it."""
    before, after = (group_by(questions, key) for questions in run.answers)
    rows = []
    for name in dict.fromkeys([*before, *after]):
        first, second = before.get(name, []), after.get(name, [])
        rows.append(
            Row(
                run.name,
                name,
                len(second or first),
                average_interval(first) if first else None,
                average_interval(second) if second else None,
                _difference(first, second),
            )
        )
    # One group of all questions is what the table above says already.
    return rows if len(rows) > 1 else []


def _test_rows(
    runs: Sequence[Run], before: Sequence[dict[str, Outcome]], after: Sequence[dict[str, Outcome]]
) -> list[Row]:
    """Every test, with the runs below one another; empty where no run has tests."""
    rows = []
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


def settings_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Every setting of every run; those that differ come first."""
    configs = [{name: shown(value) for name, value in run.config.items()} for run in runs]
    return sorted(side_by_side(configs, NAMES), key=lambda setting: not setting["differs"])


def side_by_side(
    columns: Sequence[Mapping[str, str]], own: Sequence[str], ignored: Set[str] = frozenset()
) -> list[dict[str, Any]]:
    """What runs have under each name, and whether they differ in it; in what is their `own` all do.

    Names are compared without their section; `ignored` values differ from none.
    """
    rows = []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = tuple(column.get(name, _UNKNOWN) for column in columns)
        differs = len({*values} - ignored) > 1 and name.rpartition(".")[2] not in own
        rows.append({"name": name, "values": values, "differs": differs})
    return rows


def _facts(run: Run) -> dict[str, str]:
    """What was run, in a few lines."""
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
    facts = {
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
    return {name: value or _UNKNOWN for name, value in facts.items()}


def choose_samples(run: Run, count: int = SAMPLES) -> list[Sample]:
    """Questions to show: a third that rose most, a third that fell most, a third in between.

    Choice: the first sample of a question is shown, not the best one.
    """
    before, after = ({q.id: q for q in questions} for questions in run.answers)
    both = {i: average(after[i]) - average(before[i]) for i in after if i in before}
    ids = sorted(both, key=lambda i: -both[i]) if before and after else [*after, *before]
    if len(ids) > count:
        third = count // 3
        middle = (len(ids) - third) // 2
        ids = [*ids[:third], *ids[middle : middle + third], *ids[-third:]]
    return [Sample(after.get(i) or before[i], before.get(i), after.get(i)) for i in ids]
