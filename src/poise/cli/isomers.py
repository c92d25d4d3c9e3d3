"""`poise isomers`: logical isomer sets, generated, validated and shown."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import CommandParser, option
from .main import dispatch

if TYPE_CHECKING:
    from ..isomers.forms import Row

SUBCOMMANDS = {
    "generate": ("make isomer sets from a seed, without a model", "poise.cli.isomers:generate"),
    "build": ("have a teacher rewrite your own problems", "poise.cli.isomers_build:main"),
    "validate": ("list faults and doubts of files, by line and set", "poise.cli.isomers:validate"),
    "show": ("print sets, their domains side by side", "poise.cli.isomers:show"),
}
_MANY = 1000  # sets from which on a progress bar is worth its line
_WIDTH = 120  # of tables in a file or a pipe, where there is no terminal to fit


@dataclass
class GenerateArguments:
    """Which isomer sets."""

    output: str | None = option(None, "The .jsonl file to write, a row per problem.")
    count: int = option(1000, "How many sets; with --tests, in each test.")
    split: str | None = option(
        None,
        "train, validation or test; no form occurs in two of them. By default train, with --tests "
        "test.",
    )
    seed: int = option(0, "Seed of the sets.")
    families: list[str] | None = option(None, "Families of logical form. By default all.")
    depths: list[int] = option([1, 2], "Reasoning steps.")
    domains: list[str] | None = option(
        None,
        "In whose words; with --tests those of training. By default mathematics, medicine, law and "
        "science.",
    )
    cue: str = option(
        "off",
        "Surface cue: 'off', 'train' (right with --cue_strength), 'random' or 'reversed'; with "
        "--tests that of training, 'off' or 'train'.",
    )
    cue_strength: float | None = option(
        None, "Probability that the cue is right in training, 0.9 by default; with --cue train."
    )
    phrasings: str = option("seen", "'seen', or 'unseen' for those kept for --tests.")
    tests: bool = option(
        False, "Write the test sets (unseen domains, reversed cue, ...) in a column 'test'."
    )
    overwrite: bool = option(False, "Replace a file that is there.")


def main(argv: list[str]) -> int:
    """Run the subcommand that the first word names."""
    about = "Problems of the same logic in several domains."
    return dispatch(argv, SUBCOMMANDS, "poise isomers", about)


def generate(argv: list[str]) -> int:
    """Write isomer sets to a file.

    Raises:
        ValueError: no file is named, one is there already, or the generator's refusals.
    """
    parser = CommandParser(
        GenerateArguments,
        prog="poise isomers generate",
        description="Make logical isomer sets from a seed: the same logic in several domains.",
    )
    (arguments,) = parser.parse_args_and_config(argv)
    output = Path(arguments.output or "none")
    if output.suffix != ".jsonl":
        raise ValueError(f"expected --output FILE.jsonl, found {output}")
    if output.exists() and not arguments.overwrite:
        raise ValueError(
            f"{output}: expected a new file, found one; give --overwrite to replace it"
        )
    from ..rows import write_jsonl

    rows = _rows(arguments)
    write_jsonl(output, rows)
    print(f"{len(rows)} problems written to {output}")
    return 0


def _rows(arguments: GenerateArguments) -> list[Row]:
    from ..isomers.cues import Cue
    from ..isomers.forms import TRAIN_DOMAINS
    from ..isomers.generate import generate_isomers
    from ..isomers.rows import isomer_tests

    count, seed, cue = arguments.count, arguments.seed, arguments.cue
    forms = (arguments.families, arguments.depths)
    domains = arguments.domains or TRAIN_DOMAINS
    if arguments.cue_strength is not None and cue != "train":
        raise ValueError(
            f"--cue_strength: expected with --cue train, found --cue {cue}; a cue that is off, "
            "random or reversed has no strength"
        )
    strength = 0.9 if arguments.cue_strength is None else arguments.cue_strength
    if arguments.tests:
        if cue not in ("off", "train") or arguments.phrasings != "seen":
            raise ValueError(
                "--tests: expected --cue 'off' or 'train', that of training, and --phrasings "
                f"'seen', as tests have their own; found {cue!r} and {arguments.phrasings!r}"
            )
        trained = None if cue == "off" else strength
        split = arguments.split or "test"
        return isomer_tests(count, seed, split, *forms, trained, domains=domains)
    if len(domains) == 1:
        print(
            f"poise isomers: {domains[0]} alone: such sets train plain fine-tuning; IGA compares "
            "two domains or more",
            file=sys.stderr,
        )
    mode: Any = cue
    shortcut = Cue(mode, strength)
    options = (arguments.split or "train", seed, *forms, domains, shortcut, arguments.phrasings)
    return generate_isomers(count, *options, progress=count >= _MANY)


def validate(argv: list[str]) -> int:
    """List the faults and warnings of files; returns 2 if there are faults."""
    parser = CommandParser(
        prog="poise isomers validate",
        description="Find faults of isomer sets, and warn of what is doubtful. Several files are "
        "also compared with each other, as training and test sets must share nothing.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="A .jsonl file.")
    parser.add_argument("--limit", type=int, default=50, help="Most lines to list.")
    (arguments,) = parser.parse_args_and_config(argv)
    _check_positive("limit", arguments.limit)
    from ..isomers.validate import validate_isomers

    # From a configuration file one file may come as plain text.
    files = [arguments.files] if isinstance(arguments.files, str) else arguments.files
    # Faults before warnings, which may be many.
    found = sorted(validate_isomers(*files), key=lambda fault: fault.is_doubtful)
    for fault in found[: arguments.limit]:
        print(fault)
    if len(found) > arguments.limit:
        print(f"... and {len(found) - arguments.limit} more")
    warnings = sum(fault.is_doubtful for fault in found)
    faults = len(found) - warnings
    total = f"Faults found: {faults}" if faults else f"No faults in {', '.join(files)}"
    print(f"{total}, warnings: {warnings}" if warnings else total)
    return 2 if faults else 0


def show(argv: list[str]) -> int:
    """Print the first sets of a file, their domains side by side.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or its rows are no isomers.
    """
    parser = CommandParser(
        prog="poise isomers show",
        description="Print the first sets of a file, their domains side by side.",
    )
    parser.add_argument("file", metavar="FILE", help="A .jsonl file.")
    parser.add_argument("--count", type=int, default=3, help="How many sets.")
    (arguments,) = parser.parse_args_and_config(argv)
    _check_positive("count", arguments.count)
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from ..isomers.rows import REQUIRED, group_rows
    from ..rows import check_columns, read_jsonl

    rows = read_jsonl(arguments.file)
    for row in rows:
        check_columns(list(row), REQUIRED, arguments.file)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    sets = list(group_rows(rows).values())
    for members in sets[: arguments.count]:
        first = members[0]
        title = [str(first["isomer_id"])]
        title += [f"{k} {first[k]}" for k in ("test", "family", "depth", "answer") if k in first]
        columns = (Column(Text(str(member["domain"])), ratio=1) for member in members)
        table = Table(
            *columns, title=Text(" · ".join(title)), title_justify="left", show_lines=True
        )
        for column in ("prompt", "completion"):
            table.add_row(*(Text(str(member[column]).strip()) for member in members))
        if any(member.get("cue") is not None for member in members):
            table.add_row(*(Text(f"cue: {member.get('cue')}") for member in members))
        console.print(table)
    console.print(f"{min(arguments.count, len(sets))} of {len(sets)} sets")
    return 0


def _check_positive(flag: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"--{flag}: expected at least 1, found {value}")
