"""`poise bench pack`: an experiment for a machine without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .arguments import CommandParser, option

MIB = 2**20


@dataclass
class PackArguments:
    """For which machine, and where to."""

    output: str = option("pack", "Folder of the parts.")
    python: str | None = option(
        None,
        "Python of a Linux on x86-64, such as 3.12; by default wheels are for this machine.",
    )
    without: list[str] = option(
        ["torch"], "Packages that the machine has; what only they need stays out too.", nargs="*"
    )
    part_mb: int = option(1024, "Most MiB in a part.")


def main(argv: list[str]) -> int:
    """Write the parts and say how to use them.

    Raises:
        ValueError: the experiment is wrong, or something that it needs cannot be had.
    """
    parser = CommandParser(
        PackArguments,
        prog="poise bench pack",
        description="Pack an experiment with Poise, wheels, models and data. There: "
        "`cat NAME.tar.* | tar x`, then `NAME/run.sh`; what it adds to "
        "NAME/experiments/NAME/results.jsonl goes back here.",
    )
    parser.add_argument("name", metavar="NAME", help="An experiment.")
    arguments, places = parser.parse_args_and_config(argv)
    if arguments.part_mb < 1:
        raise ValueError(f"--part_mb: expected at least 1, found {arguments.part_mb}")
    from ..bench import runner, specification
    from ..bench.pack import Machine, pack

    experiment = specification.load(specification.find(places.name))
    runner.check_runs(experiment)
    machine = Machine(arguments.python, tuple(arguments.without))
    parts = pack(experiment, Path(arguments.output), machine, arguments.part_mb * MIB)
    for part in parts:
        print(f"{part}: {part.stat().st_size / MIB:.1f} MiB")
    name = experiment.name
    print(f"There: cat {name}.tar.* | tar x && {name}/run.sh")
    return 0
