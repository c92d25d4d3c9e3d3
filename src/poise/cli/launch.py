"""Starts a training command under accelerate's launcher, where there is need for it."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from trl.cli.accelerate_config import resolve_accelerate_config_argument

from ..threads import use_free_cores
from .arguments import CommandParser


def parse(parser: CommandParser, argv: list[str]) -> tuple[list[Any], list[str]]:
    """The command's arguments, and the launcher's flags.

    Args:
        parser: the command's.
        argv: the command line after the command's name.

    Returns:
        The parsed dataclasses, and the launcher's flags of file and command line.

    Raises:
        ValueError: a flag that neither of them knows.
    """
    *parsed, flags = parser.parse_args_and_config(argv, return_remaining_strings=True)
    if flags:
        options = {
            "--accelerate_config",
            *(
                name
                for action in launch_command_parser()._actions
                for name in action.option_strings
            ),
        }
        for word in flags:
            if word.startswith("-") and word.partition("=")[0] not in options:
                parser.refuse(word)
    return parsed, flags


def needs_launcher(launch_flags: list[str]) -> bool:
    """Several accelerators, or flags for the launcher; else the command runs in this process, as
    in one that a launcher has started."""
    if "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        return False
    return bool(launch_flags) or torch.cuda.device_count() > 1


def launch(module: str, launch_flags: list[str], argv: list[str], is_on_cpu: bool = False) -> int:
    """Runs `python -m module argv` under accelerate, as `trl` does; returns the exit status.

    Args:
        launch_flags: what `accelerate launch` understands, and `--accelerate_config NAME` for one
            of the configurations that TRL ships.
        is_on_cpu: whether the processes leave accelerators alone.

    Raises:
        ValueError: fewer processes than one, or more than there are accelerators.
    """
    flags = resolve_accelerate_config_argument(launch_flags)
    arguments = launch_command_parser().parse_args([*flags, "--module", module, *argv])
    _check_processes(arguments, is_on_cpu or arguments.cpu)
    use_free_cores(arguments.num_processes or 1)
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:  # the child has said what was wrong
        return error.returncode
    return 0


def _check_processes(arguments: Any, is_on_cpu: bool) -> None:
    """Starts several processes on CPUs too, where accelerate starts one without a word."""
    processes = arguments.num_processes
    if processes is None:
        return
    if processes < 1:
        raise ValueError(f"--num_processes: expected at least 1, found {processes}")
    there = torch.accelerator.device_count()
    if processes > 1 and is_on_cpu:
        # The launcher for several GPUs starts any processes; what they use they decide themselves.
        arguments.cpu, arguments.multi_gpu = False, True
        arguments.training_script_args += ["--use_cpu", "true"]
    elif processes > there > 0 and (arguments.num_machines or 1) == 1:
        raise ValueError(
            f"--num_processes: expected at most {there}, the accelerators of this machine, found "
            f"{processes}; --use_cpu true runs them on the CPU"
        )
