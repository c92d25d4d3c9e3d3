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
from .layer_plots import draw_layers
from .outcome_measures import MEASURES, title_of
from .panels import domain_losses, panels_of
from .report_content import (
    choose_samples,
    facts_of,
    groups_of,
    repeated,
    results_of,
    settings_of,
)
from .report_tests import seeds_of, tests_of
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
    curves = _curves(runs)
    results = results_of(runs)
    return (
        environment("poise.evaluate")
        .get_template("report.html.j2")
        .render(
            runs=runs,
            results=results,
            repeated=repeated(results),
            domains=[row for run in runs for row in groups_of(run, lambda q: q.domain)],
            tests=tests_of(runs),
            seeds=seeds_of(runs),
            measures=MEASURES,
            levels=[row for run in runs for row in groups_of(run, lambda q: q.level)],
            curves=[(title, picture) for title, picture in curves if picture],
            not_logged=[title for title, picture in curves if not picture],
            layers=[(run, picture) for run in runs if (picture := draw_layers(run))],
            settings=settings_of(runs),
            facts=facts_of(runs),
            samples=[(run, choose_samples(run)) for run in runs],
            version=poise.__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _curves(runs: Sequence[Run]) -> list[tuple[str, str | None]]:
    """Titles and pictures; None where nothing was logged."""
    return [
        ("Accuracy on unseen questions", plots.draw_accuracy(runs)),
        *((panel.title, plots.draw(panel, [run])) for run, panel in domain_losses(runs)),
        *((panel.title, plots.draw(panel, runs)) for panel in panels_of(runs)),
    ]


def environment(package: str) -> jinja2.Environment:
    """What fills in the templates of a package's pages."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "p_value": p_value,
        "title_of": title_of,
    }
    return environment
