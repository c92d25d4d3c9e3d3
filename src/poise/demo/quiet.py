"""A run among hundreds says nothing by itself."""

from __future__ import annotations

from typing import Any

import datasets
from transformers import PrinterCallback
from transformers.utils import logging


def hide_bars() -> None:
    """No progress bars of loading a model and preparing rows, in this process."""
    logging.disable_progress_bar()
    datasets.disable_progress_bars()


def quieten(trainer: Any) -> None:
    """Takes the printing of each logged step off a trainer; its history keeps them."""
    trainer.remove_callback(PrinterCallback)
