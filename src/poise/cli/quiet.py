"""What a user of a command sees beside its own lines: Poise's log, not the chatter of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings


class _Screen(logging.Handler):
    """Standard error, as it is when a line comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def be_quiet() -> None:
    """Show Poise's log and errors of other libraries; must come before these are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.simplefilter("ignore", FutureWarning)
    own = logging.getLogger("poise")
    if not any(isinstance(handler, _Screen) for handler in own.handlers):
        own.addHandler(_Screen())
        is_first = os.environ.get("LOCAL_RANK", "0") == "0"
        own.setLevel(logging.INFO if is_first else logging.WARNING)
