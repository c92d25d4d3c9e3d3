"""Commands that have subcommands of their own."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping

# Subcommand -> (what it does, "module:function").
Subcommands = Mapping[str, tuple[str, str]]


def dispatch(argv: list[str], subcommands: Subcommands, usage: Callable[[], str]) -> int:
    """Run the subcommand that the first word names.

    Raises:
        ValueError: an unknown subcommand.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if argv else 2
    name, *rest = argv
    if name not in subcommands:
        near = difflib.get_close_matches(name, subcommands, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected {', '.join(subcommands)}"
        raise ValueError(f"unknown subcommand {name!r}; {hint}")
    module, _, function = subcommands[name][1].partition(":")
    status: int = getattr(importlib.import_module(module), function)(rest)
    return status
