"""A table as text, in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from poise.evaluate.measures import percent, points, shown
from poise.evaluate.statistics import Interval

from . import validity
from .experiment import Column, Experiment
from .results import Record
from .tables import Row, Section, comparisons

SIGNIFICANT = 0.05
_LISTED = 20  # missing runs that are named


def page(experiment: Experiment, records: Mapping[str, Record], sections: Sequence[Section]) -> str:
    """The page that stands beside the results."""
    parts = [f"# {experiment.name}", *_introduction(experiment, records, sections)]
    for section in sections:
        header, rows = _cells(experiment, section)
        numbers = len(section.axes) + 1
        rule = ["---" if i < numbers else "---:" for i in range(len(header))]
        parts += [f"## {title(section)}", "\n".join(map(_line, [header, rule, *rows]))]
    return "\n\n".join([*parts, *_ran_on(experiment, records)]) + "\n"


def _introduction(
    experiment: Experiment, records: Mapping[str, Record], sections: Sequence[Section]
) -> list[str]:
    """How much is done, what is missing, and how the numbers are to be read."""
    runs = experiment.runs()
    absent = [run for run in runs if run.key not in records]
    paragraphs = [
        f"Study {experiment.study}: {len(runs) - len(absent)} of {len(runs)} runs, "
        f"{len(experiment.seeds)} seeds. Brackets are 95 % intervals over seeds (Student's; where "
        "each seed has 0 or 100 %, Wilson's)."
    ]
    if experiment.validity:
        found = validity.verdicts(experiment, records)
        holds = all(verdict.holds for verdict in found)
        result = "holds" if holds else "does NOT hold, so that nothing is compared"
        paragraphs.append(f"Validity rule: {result}. {'; '.join(map(str, found))}.")
    if count := comparisons(sections):
        partners = {row.partner for s in sections for row in s.rows if row.comparison}
        others = ", where no other is named" if partners - {experiment.baseline} else ""
        paragraphs.append(
            f"Differences are to {experiment.baseline or 'the method named'}{others}, paired by "
            f"seed; p is of the paired t-test after Holm's correction for all {count} comparisons "
            f"here. Bold: p < {SIGNIFICANT}."
        )
    if absent:
        rest = f"; and {len(absent) - _LISTED} more" if len(absent) > _LISTED else ""
        named = "; ".join(map(str, absent[:_LISTED]))
        paragraphs.append(f"Missing runs ({len(absent)}): {named}{rest}.")
    return paragraphs


def _ran_on(experiment: Experiment, records: Mapping[str, Record]) -> list[str]:
    """Machines and versions of the runs that are shown, and the time that they took."""
    mine = [records[run.key] for run in experiment.runs() if run.key in records]
    if not mine:
        return []
    hours = sum(record.get("seconds", 0.0) for record in mine) / 3600
    machines = Counter(_described(record.get("hardware", {})) for record in mine)
    versions = Counter(_described(record.get("versions", {})) for record in mine)
    return [
        f"Wall time of all runs: {hours:.2f} h.",
        *(f"Machine ({n} runs): {text}." for text, n in machines.most_common()),
        *(f"Versions ({n} runs): {text}." for text, n in versions.most_common()),
    ]


def title(section: Section) -> str:
    """The figure's name, its unit, and which direction is better."""
    column = section.column
    unit = (", points" if column.by == "trend" else ", %") if column.percent else ""
    made = f" ({column.of})" if column.of else ""
    if column.over:
        made = f" ({column.by} of {column.of or section.name} over {column.over})"
    better = f" ({column.better} is better)" if column.better else ""
    return f"{section.name}{unit}{made}{better}"


def _cells(experiment: Experiment, section: Section) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text; a significant difference is in asterisks."""
    header = [*section.axes, "method", "seeds", "mean"]
    compared = any(row.comparison for row in section.rows)
    if compared:
        header += ["difference", "p"]
    rows = []
    for row in section.rows:
        texts = [*map(shown, row.axes), row.method, str(len(row.values))]
        texts.append(_mean(row, section.column))
        if compared:
            texts += _difference(row, section.column, experiment.baseline)
        rows.append(texts)
    return header, rows


def _mean(row: Row, column: Column) -> str:
    if row.mean is None:
        return "missing"
    if row.interval is None:
        return f"{100 * row.mean:.1f}" if column.percent else _three(row.mean)
    if column.by == "trend":  # itself a difference
        return points(row.interval) if column.percent else _number(row.interval, "+")
    return percent(row.interval) if column.percent else _number(row.interval, "")


def _difference(row: Row, column: Column, baseline: str | None) -> list[str]:
    comparison = row.comparison
    if comparison is None:
        return ["", ""]
    if comparison.interval is None:
        text = f"{100 * comparison.mean:+.1f}" if column.percent else _three(comparison.mean, "+")
    else:
        interval = comparison.interval
        text = points(interval) if column.percent else _number(interval, "+")
    if comparison.seeds < len(row.values):
        text += f" ({comparison.seeds} seeds)"
    if row.partner != baseline:
        text += f" to {row.partner}"
    p = comparison.corrected
    if p is None:
        return [text, ""]
    return [f"**{text}**" if p < SIGNIFICANT else text, "< 0.001" if p < 0.001 else f"{p:.3f}"]


def _number(interval: Interval, sign: str) -> str:
    mean, low, high = (_three(v, sign) for v in (interval.mean, interval.low, interval.high))
    return f"{mean} [{low}, {high}]"


def _three(value: float, sign: str = "") -> str:
    """Three digits, zeros among them."""
    return format(value, f"{sign}#.3g").rstrip(".")


def _described(parts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"
