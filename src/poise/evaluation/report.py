"""One self-contained HTML page about one or several training runs.

The page needs no other file, no network and no script. It is made from saved records only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2

import poise

from . import plots
from .report_content import (
    choose_samples,
    facts_of,
    groups_of,
    repeated,
    results_of,
    settings_of,
)
from .runs import Run
from .summary import p_value, percent, points


def write_report(runs: Sequence[Run], output: str | Path) -> Path:
    """Write the page; its folder is made where it is missing.

    Raises:
        ValueError: there are no runs.
        OSError: the file cannot be written.
    """
    path = Path(output)
    page = render_report(runs)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def render_report(runs: Sequence[Run]) -> str:
    """The page as text.

    Raises:
        ValueError: there are no runs.
    """
    if not runs:
        raise ValueError("report: expected one or more runs, found none")
    pictures = [plots.draw_accuracy(runs), *(plots.draw(panel, runs) for panel in plots.PANELS)]
    titles = ["Accuracy on unseen questions", *(panel.title for panel in plots.PANELS)]
    results = results_of(runs)
    curves = list(zip(titles, pictures, strict=True))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            runs=runs,
            results=results,
            repeated=repeated(results),
            domains=[row for run in runs for row in groups_of(run, lambda q: q.domain)],
            levels=[row for run in runs for row in groups_of(run, lambda q: q.level)],
            curves=[(title, picture) for title, picture in curves if picture],
            not_logged=[title for title, picture in curves if not picture],
            settings=settings_of(runs),
            facts=facts_of(runs),
            samples=[(run, choose_samples(run)) for run in runs],
            version=poise.__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("poise.evaluation"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": percent, "points": points, "p_value": p_value}
    return environment
