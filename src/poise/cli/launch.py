"""Starts a training command under accelerate's launcher, where there is need for it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from trl.cli.accelerate_config import resolve_accelerate_config_argument


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def parse(parser: Any, argv: list[str]) -> tuple[list[Any], list[str], list[str]]:
    """Takes apart flags of the command and flags of the launcher.

    Args:
        parser: a `CommandParser`.
        argv: the command line after the command's name.

    Returns:
        The parsed dataclasses, the launcher's flags, and `argv` without those.

    Raises:
        ValueError: a flag that neither of them knows.
    """
    *parsed, from_file, from_line = parser.parse_args_and_config(
        argv, return_remaining_strings=True, separate_remaining_strings=True
    )
    flags = [*from_file, *from_line]
    for word in flags:
        if word.startswith("-") and word.partition("=")[0] not in _launcher_options():
            parser.refuse(word)
    return parsed, flags, _without(argv, from_line)


def _launcher_options() -> set[str]:
    actions = launch_command_parser()._actions
    return {"--accelerate_config", *(name for action in actions for name in action.option_strings)}


def _without(argv: list[str], leave_out: list[str]) -> list[str]:
    """`argv` without an ordered part of it."""
    rest, left = iter(leave_out), []
    waiting = next(rest, None)
    for word in argv:
        if word == waiting:
            waiting = next(rest, None)
        else:
            left.append(word)
    return left


def needs_launcher(launch_flags: list[str]) -> bool:
    """Several accelerators, or flags for the launcher; else the command runs in this process."""
    return not is_launched() and (bool(launch_flags) or torch.cuda.device_count() > 1)


def launch(module: str, launch_flags: list[str], argv: list[str]) -> int:
    """Runs `python -m module argv` under accelerate, as `trl` does; returns the exit status.

    Args:
        launch_flags: what `accelerate launch` understands, and `--accelerate_config NAME` for one
            of the configurations that TRL ships.

    Raises:
        ValueError: fewer processes than one.
    """
    flags = resolve_accelerate_config_argument(launch_flags)
    arguments = launch_command_parser().parse_args([*flags, "--module", module, *argv])
    if arguments.num_processes is not None and arguments.num_processes < 1:
        raise ValueError(f"--num_processes: expected at least 1, found {arguments.num_processes}")
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:  # the child has said what was wrong
        return error.returncode
    return 0
