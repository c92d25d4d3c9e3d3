"""`poise isomers`: logical isomer sets, generated, built, validated and shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import CommandParser, option
from .subcommands import dispatch

if TYPE_CHECKING:
    from ..isomers.rows import Row

# Subcommand -> what it does, and the module and function that run it.
SUBCOMMANDS = {
    "generate": ("make isomer sets from a seed, without a model", "poise.cli.isomers:generate"),
    "build": ("have a teacher retell your own problems", "poise.cli.isomers_build:main"),
    "validate": ("list the faults of files, by line and set", "poise.cli.isomers:validate"),
    "show": ("print sets, their domains side by side", "poise.cli.isomers:show"),
}
MANY = 1000  # sets from which on a progress bar is worth its line


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


@dataclass
class ShowArguments:
    """How much of a file."""

    sets: int = option(3, "How many sets.")


@dataclass
class ValidateArguments:
    """How the faults are listed."""

    limit: int = option(50, "List at most so many faults.")


def main(argv: list[str]) -> int:
    """Run the subcommand that the first word names."""
    return dispatch(argv, SUBCOMMANDS, usage)


def usage() -> str:
    """What `poise isomers --help` prints."""
    lines = "\n".join(f"  {name:<10}{text}" for name, (text, _) in SUBCOMMANDS.items())
    return (
        "usage: poise isomers SUBCOMMAND [--flags]\n\n"
        f"Problems of the same logic, told in several domains.\n\nsubcommands:\n{lines}\n\n"
        "`poise isomers SUBCOMMAND --help` lists the flags of a subcommand."
    )


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
    if not arguments.output or Path(arguments.output).suffix != ".jsonl":
        found = arguments.output or "none"
        raise ValueError(f"expected --output FILE.jsonl, found {found}")
    if Path(arguments.output).exists() and not arguments.overwrite:
        raise ValueError(
            f"{arguments.output}: expected a new file, found one; give --overwrite to replace it"
        )
    from ..isomers.rows import write_isomers

    # All is generated before the file is opened, so that a refusal leaves no half of a file.
    rows = list(_rows(arguments))
    print(f"{write_isomers(arguments.output, rows)} problems written to {arguments.output}")
    return 0


def _rows(arguments: GenerateArguments) -> Iterator[Row]:
    from ..isomers.cues import Cue
    from ..isomers.generate import generate_isomers
    from ..isomers.model import TRAIN_DOMAINS
    from ..isomers.rows import isomer_tests, to_rows

    domains = arguments.domains or TRAIN_DOMAINS
    if len(domains) == 1 and not arguments.tests:
        print(
            f"poise isomers: {domains[0]} alone: such sets train plain fine-tuning; IGA compares "
            "two domains or more",
            file=sys.stderr,
        )
    split = arguments.split or ("test" if arguments.tests else "train")
    strength = _strength(arguments)
    what = (arguments.count, split, arguments.seed, arguments.families, arguments.depths)
    if arguments.tests:
        _check_tests(arguments)
        count, split, seed, families, depths = what
        told = None if arguments.cue == "off" else strength
        yield from isomer_tests(count, seed, split, families, depths, told, None, domains)
        return
    cue: Any = Cue(arguments.cue, strength)  # type: ignore[arg-type]
    is_long = arguments.count >= MANY
    yield from to_rows(generate_isomers(*what, domains, cue, arguments.phrasings, is_long))


def _strength(arguments: GenerateArguments) -> float:
    if arguments.cue_strength is None:
        return 0.9
    if arguments.cue != "train":
        raise ValueError(
            f"--cue_strength: expected with --cue train, found --cue {arguments.cue}; a cue that "
            "is off, random or reversed has no strength"
        )
    return arguments.cue_strength


def _check_tests(arguments: GenerateArguments) -> None:
    """Refuse what the tests set by themselves."""
    for flag, found, allowed in (
        ("cue", arguments.cue, ("off", "train")),
        ("phrasings", arguments.phrasings, ("seen",)),
    ):
        if found not in allowed:
            raise ValueError(
                f"--{flag}: expected {' or '.join(map(repr, allowed))}, that of training, with "
                f"--tests, which have their own; found {found!r}"
            )


def validate(argv: list[str]) -> int:
    """List the faults of files; returns 2 if there are any."""
    parser = CommandParser(
        ValidateArguments,
        prog="poise isomers validate",
        description="Find faults of isomer sets. Several files are also compared with each other, "
        "as training and test sets must share nothing.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="A .jsonl file.")
    arguments, places = parser.parse_args_and_config(argv)
    if arguments.limit < 1:
        raise ValueError(f"--limit: expected at least 1, found {arguments.limit}")
    from ..isomers.validate import validate_isomers

    files = [places.files] if isinstance(places.files, str) else places.files
    faults = validate_isomers(*files)
    for fault in faults[: arguments.limit]:
        print(fault)
    if len(faults) > arguments.limit:
        print(f"... and {len(faults) - arguments.limit} more")
    print(f"Faults found: {len(faults)}" if faults else f"No faults in {', '.join(files)}")
    return 2 if faults else 0


def show(argv: list[str]) -> int:
    """Print sets, their domains side by side."""
    parser = CommandParser(
        ShowArguments,
        prog="poise isomers show",
        description="Print the first sets of a file, their domains side by side.",
    )
    parser.add_argument("file", metavar="FILE", help="A .jsonl file.")
    arguments, places = parser.parse_args_and_config(argv)
    if arguments.sets < 1:
        raise ValueError(f"--sets: expected at least 1, found {arguments.sets}")
    from .isomers_show import show_sets

    show_sets(places.file, arguments.sets)
    return 0
