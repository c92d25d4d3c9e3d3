"""How fast and how often to ask: a shared rate, pauses, and waits that grow."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked again after this


class Pace:
    """A rate that threads share: starts are spaced evenly, and a pause holds all of them.

    Args:
        per_minute: Most starts in a minute, None for no bound.

    Raises:
        ValueError: a rate that is not above 0.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        if per_minute is not None and not per_minute > 0:
            raise ValueError(
                f"requests_per_minute: expected a number above 0, found {per_minute!r}"
            )
        self.interval = 60.0 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Sleep until the caller may start."""
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self.interval
                    return
                rest = self._next - now
            time.sleep(rest)

    def pause(self, seconds: float) -> None:
        """Nobody starts for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def backoff(attempt: int, base: float) -> float:
    """Seconds to wait after a failed attempt: base * 2^attempt, times a random 0.5 to 1.

    Choice: the chance keeps threads that failed together from coming back together.

    Args:
        attempt: Failed attempts before this one, from 0.
        base: Seconds, of the first wait at most.
    """
    longest: float = min(LONGEST_WAIT, base * 2.0 ** min(attempt, 30))
    return longest * random.uniform(0.5, 1.0)


def retry_after(value: str | None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, None without a readable one.

    Args:
        value: Seconds, or a date as HTTP writes it.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    # Not a number compares false and ends as no wait.
    return min(seconds, LONGEST_WAIT) if seconds > 0 else 0.0
