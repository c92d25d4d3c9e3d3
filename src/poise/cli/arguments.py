"""TRL's parser of flags and YAML, with mistakes as one line; old names are accepted."""

from __future__ import annotations

import difflib
import json
import logging
from argparse import ArgumentTypeError
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, NoReturn

from trl import TrlParser

logger = logging.getLogger(__name__)

# Names of 0.1, accepted for one release by commands that know the new name alone: old -> new.
OLD_NAMES: dict[str, str] = {
    "dataset": "dataset_name",
    "split": "dataset_train_split",
    "rewards": "reward_funcs",
    "questions": "count",
    "sets": "count",
}


def option(default: Any, text: str, **argparse: Any) -> Any:
    """A dataclass field that is a flag: its default, what `--help` says about it, and further
    arguments of `add_argument`."""
    metadata = {"help": text, **argparse}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _mapping(text: str) -> dict[str, Any] | None:
    """A mapping from JSON, which TRL's parser does not read; None from "none", as it does."""
    if text.lower() in ("none", "null"):
        return None
    reason = ""
    try:
        if isinstance(value := json.loads(text), dict):
            return value
    except json.JSONDecodeError as error:
        reason = f" ({error})"
    raise ArgumentTypeError(
        f"expected a mapping in JSON, such as '{{\"name\": 1}}', found {text!r}{reason}"
    )


class CommandParser(TrlParser):
    """`TrlParser` whose errors are exceptions; it takes `--config=FILE`, no part of a name, and
    `OLD_NAMES`, on the command line and in the file."""

    def __init__(self, dataclass_types: Any = None, **options: Any) -> None:
        super().__init__(dataclass_types, **{"allow_abbrev": False, **options})
        self._warned: set[str] = set()
        for action in self._actions:
            if getattr(action.type, "__name__", "") == "dict":
                action.type = _mapping

    def error(self, message: str) -> NoReturn:
        """Raises: ValueError, instead of printing the usage and leaving."""
        raise ValueError(f"{message} (see {self.prog} --help)")

    def parse_args_and_config(
        self, args: Iterable[str] | None = None, *rest: Any, **options: Any
    ) -> tuple[Any, ...]:
        """As TRL's. Raises: ValueError, where command line or file is wrong, or a flag unknown
        (unless those are asked for)."""
        words: list[str] = []
        for word in self.with_new_names(args or ()):
            words += word.split("=", 1) if word.startswith("--config=") else [word]
        if "--config" in words:
            file = [*words, ""][words.index("--config") + 1]
            if not Path(file).is_file():
                raise ValueError(f"--config: expected a YAML file, found none at {file!r}")
        if options.get("return_remaining_strings") or rest:
            return super().parse_args_and_config(words, *rest, **options)
        *parsed, from_file, from_line = super().parse_args_and_config(
            words, return_remaining_strings=True, separate_remaining_strings=True
        )
        for unknown in [*from_line, *from_file]:
            self.refuse(unknown)
        return tuple(parsed)

    def set_defaults_with_config(self, **settings: Any) -> list[str]:
        """As TRL's: the file's settings become defaults."""
        new = {self._new_name(name): value for name, value in settings.items()}
        return super().set_defaults_with_config(**new)

    def with_new_names(
        self, words: Iterable[str], others: Mapping[str, str] | None = None
    ) -> list[str]:
        """The command line with new names for old ones, `others` too, and one warning for each."""
        parts = [word.partition("=") for word in words]
        return [
            f"--{self._new_name(flag[2:], others)}{sign}{value}"
            if flag.startswith("--")
            else f"{flag}{sign}{value}"
            for flag, sign, value in parts
        ]

    def _new_name(self, name: str, others: Mapping[str, str] | None = None) -> str:
        """Of an argument that this command knows; any other name stays."""
        known = {action.dest for action in self._actions}
        old = name.replace("-", "_")
        new = (others or {}).get(old) or (None if old in known else OLD_NAMES.get(old))
        if new is None or new not in known:
            return name
        if old not in self._warned:
            self._warned.add(old)
            logger.warning("--%s is --%s now; its old name goes with the next release", old, new)
        return new

    def refuse(self, word: str, others: Iterable[str] = ()) -> NoReturn:
        """Raises: ValueError, naming the unknown flag and the nearest known one, `others` too."""
        # What has no help text is an old name.
        flags = [flag for action in self._actions if action.help for flag in action.option_strings]
        flags += others
        near = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        raise ValueError(f"unknown argument {word!r}; {hint}")
