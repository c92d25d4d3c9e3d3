"""Checks of everything that the user hands over, before anything expensive starts."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from trl.data_utils import is_conversational

from ..data.validation import check_dataset
from ..models import resolve_model
from .pgpo_config import PGPOConfig


def check_before_loading(model: Any, args: PGPOConfig, train_dataset: Any) -> None:
    """Checks that need no model.

    Raises:
        ValueError: no data, rows that cannot be trained on, a path that is not a model.
        OSError: an output folder that cannot be written.
    """
    if train_dataset is None:
        raise ValueError("train_dataset is required: pass a Dataset with a column 'prompt'")
    check_dataset(train_dataset)
    check_output_folder(Path(args.output_dir))
    if isinstance(model, str):
        resolve_model(model)


def check_output_folder(folder: Path) -> None:
    """Creates the folder and a file in it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(
            f"output_dir {folder} cannot be written ({error.strerror}); choose another with "
            "output_dir"
        ) from None


def check_chat_template(rows: list[dict[str, Any]], tokenizer: Any) -> None:
    """A conversational prompt needs a tokenizer that knows how to write one down.

    Raises:
        ValueError: it does not.
    """
    if is_conversational({"prompt": rows[0]["prompt"]}) and not tokenizer.chat_template:
        raise ValueError(
            "the prompts are conversations (lists of messages), but the tokenizer has no chat "
            "template; use an instruction-tuned model, set tokenizer.chat_template, or make the "
            "prompts plain text"
        )


def first_rows(dataset: Any, count: int) -> list[dict[str, Any]]:
    """The first rows of a map-style or iterable dataset."""
    return list(itertools.islice(iter(dataset), count))
