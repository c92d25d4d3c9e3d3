"""Numbers as people read them, the same in tables and in the report."""

from __future__ import annotations

from .statistics import Interval


def percent(interval: Interval) -> str:
    """A rate in percent with its interval: ``52.7 [48.0, 57.4]``."""
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval) -> str:
    """A difference of rates in percentage points: ``+20.7 [+17.3, +24.0]``."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def p_value(p: float) -> str:
    """A p-value with as many digits as a reader needs."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
