"""What a user of a command sees beside its own lines: Poise's log, not the chatter of libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path


class _Screen(logging.Handler):
    """Standard error, as it is when a line comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


_SCREEN = _Screen()


def be_quiet() -> None:
    """Show Poise's log, and of other libraries what a user can do something about."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    warnings.simplefilter("ignore", FutureWarning)
    warnings.filterwarnings("default", ".* old name goes with the next release", FutureWarning)
    # Lists what `accelerate launch` was not given.
    logging.getLogger("accelerate.commands.launch").setLevel(logging.ERROR)
    own, is_first = logging.getLogger("poise"), os.environ.get("LOCAL_RANK", "0") == "0"
    own.addHandler(_SCREEN)  # once, however often
    own.setLevel(logging.INFO if is_first else logging.WARNING)


def hide_bars_of_files(model: str) -> None:
    """No progress bar of reading and writing weights that are on this machine; a download keeps
    its own."""
    from transformers.utils.logging import disable_progress_bar

    if Path(model).is_dir():
        disable_progress_bar()
