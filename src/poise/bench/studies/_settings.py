"""Checks of settings that several studies share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any


def require_counts(config: dict[str, Any], names: Iterable[str]) -> None:
    """Refuse numbers of things that are no whole number of at least 1.

    Raises:
        ValueError: one is missing or something else.
    """
    for name in names:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")


def require_arguments(config: dict[str, Any], make: Callable[[dict[str, Any], str], Any]) -> None:
    """Refuse what a trainer's configuration refuses.

    Args:
        config: the settings of a run.
        make: makes the configuration of settings and output folder.

    Raises:
        ValueError: a value outside its range, or an argument that it does not have.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            make(config, folder)
    except TypeError as error:  # an unknown argument
        raise ValueError(str(error)) from None
