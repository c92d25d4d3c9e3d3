"""Writes docs/arguments.md: all arguments of Poise's own, from the configurations themselves.

python docs/write_arguments.py
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from poise import IGAConfig, PGPOConfig

PAGE = Path(__file__).with_name("arguments.md")


def page() -> str:
    """The page as text."""
    parts = [
        "# All arguments\n\nPoise's own; a configuration also takes those of its parent in TRL.\n"
        "On the command line they are flags, in a YAML file keys.\n"
        "`python docs/write_arguments.py` writes this page.\n"
    ]
    for config in (PGPOConfig, IGAConfig):
        (parent,) = config.__bases__
        parts.append(
            f"## {config.__name__}\n\nBeside those of `{parent.__module__.split('.')[0]}`'s "
            f"`{parent.__name__}`.\n\n| argument | default | what it does |\n|---|---|---|"
        )
        own = config.__annotations__
        parts.append(
            "\n".join(_row(f) for f in fields(config) if f.name in own and f.metadata.get("help"))
        )
        parts.append("")
    return "\n".join(parts)


def _row(field: Field[Any]) -> str:
    default = field.default
    if field.default_factory is not MISSING:
        default = field.default_factory()
    text = " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
    return f"| `{field.name}` | `{default!r}` | {text.replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
