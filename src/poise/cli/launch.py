"""Starts a training command under accelerate's launcher, where there is need for it."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.utils import DistributedType
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from trl.cli.accelerate_config import resolve_accelerate_config_argument

from ..threads import use_free_cores
from .arguments import CommandParser

_CONFIG = "--accelerate_config"
# Parts of a configuration file that say how an engine works, and what their keys begin with where
# the launcher's flags do.
_SECTIONS = {"deepspeed_config": "", "fsdp_config": "fsdp_"}
# Exit statuses of a command: it has said in a line what is wrong; another rank has ended.
USERS_MISTAKE, LOST_RANK = 2, 3


class RankFailedError(RuntimeError):
    """A rank ended before its time, and the launcher has stopped the others."""

    exit_status = 1  # which is worth a second try, where that of a user's mistake is not


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
            _CONFIG,
            *(
                name
                for action in launch_command_parser()._actions
                for name in action.option_strings
            ),
        }
        for word in flags:
            if word.startswith("-") and word.partition("=")[0] not in options:
                parser.refuse(word, options)
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
        launch_flags: what `accelerate launch` understands, and `--accelerate_config` with a file,
            or the name of a configuration that TRL ships.
        is_on_cpu: whether the processes leave accelerators alone.

    Raises:
        RankFailedError: one of several processes has failed.
        ValueError: what the launcher would do otherwise than it is asked to: see `engine_of`, and
            `_check_engine`.
    """
    arguments = parse_flags([*launch_flags, "--module", module, *argv])
    engine = engine_of(arguments)
    there = torch.accelerator.device_count()
    is_on_cpu = is_on_cpu or engine.is_on_cpu or not there
    _check_engine(engine, 0 if is_on_cpu else there)
    if engine.kind == "ddp" and (engine.processes or 1) > 1:
        # The launcher for several GPUs starts any processes, where accelerate's own for CPUs, and a
        # file that says NO, start one without a word; what they use they decide themselves.
        arguments.cpu, arguments.multi_gpu = False, True
        arguments.training_script_args += ["--use_cpu", "true"] if is_on_cpu else []
    use_free_cores(engine.here or 1)
    # Its own words about a rank that failed: a page of them, before what is said below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        launch_command(arguments)
    except subprocess.CalledProcessError as error:  # the child has said what was wrong
        return error.returncode
    except ChildFailedError as error:
        return _what_ended(error)
    return 0


def _what_ended(error: ChildFailedError) -> int:
    """The exit status of a user's mistake, which a rank has named.

    Raises:
        RankFailedError: any other end, of the rank that was the first.
    """
    # A rank that fails may take longer to end than another that it leaves alone.
    followed = (LOST_RANK, -signal.SIGTERM)
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
    causes = [(rank, end.exitcode) for rank, end in failures if end.exitcode not in followed]
    if not causes:
        raise RankFailedError("a rank ended, whose own message is above,")
    rank, status = causes[0]
    if status == USERS_MISTAKE:
        return status
    if status > 0:
        raise RankFailedError(f"rank {rank} ended with status {status}, its own message is above,")
    name = signal.Signals(-status).name
    why = " (memory may have run out)" if name == "SIGKILL" else ""
    raise RankFailedError(f"rank {rank} was killed by {name}{why}")


@dataclass(frozen=True)
class Engine:
    """What processes do with a model.

    Args:
        kind: "ddp", "fsdp1", "fsdp2", "zero0" to "zero3", or accelerate's own name of another.
        processes: on all machines; None where nobody says.
        machines: how many.
        offloads: whether a part of it lies in the CPU's memory.
        is_on_cpu: whether accelerators are to be left alone.
    """

    kind: str
    processes: int | None
    machines: int = 1
    offloads: bool = False
    is_on_cpu: bool = False

    @property
    def here(self) -> int | None:
        """Processes of each machine."""
        return None if self.processes is None else self.processes // self.machines


def engine_of(arguments: Any) -> Engine:
    """What flags and configuration file ask for, the flags first, as accelerate takes them.

    Args:
        arguments: of `accelerate launch`, as its parser makes them; what the file says of the
            engine is put in.

    Raises:
        ValueError: a configuration file that is not there or cannot be read, an unknown key in it.
    """
    file = _read_config(arguments)
    kinds = {
        DistributedType.DEEPSPEED: arguments.use_deepspeed,
        DistributedType.FSDP: arguments.use_fsdp,
        DistributedType.MULTI_GPU: arguments.multi_gpu,
        DistributedType.XLA: arguments.tpu,
        DistributedType.MEGATRON_LM: arguments.use_megatron_lm,
    }
    named = next((kind for kind, flag in kinds.items() if flag), None)
    kind = file.distributed_type if named is None and file is not None else named
    settings = vars(arguments) | _engine_settings(arguments, file)
    processes, machines = (
        _first(getattr(arguments, name), getattr(file, name, None))
        for name in ("num_processes", "num_machines")
    )
    offloads = [settings["offload_optimizer_device"], settings["offload_param_device"]]
    if kind == DistributedType.DEEPSPEED:
        name = f"zero{_first(settings['zero_stage'], 2)}"
        does_offload = any(place not in (None, "none") for place in offloads)
    elif kind == DistributedType.FSDP:
        name = f"fsdp{settings['fsdp_version']}"
        does_offload = str(settings["fsdp_offload_params"]).lower() == "true"
    else:
        plain = (None, DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
        name, does_offload = "ddp" if kind in plain else str(kind.value).lower(), False
    is_on_cpu = bool(arguments.cpu or getattr(file, "use_cpu", False))
    return Engine(name, processes, machines or 1, does_offload, is_on_cpu)


def parse_flags(flags: list[str]) -> Any:
    """The launcher's arguments.

    Raises:
        ValueError: a value of the wrong type, `--accelerate_config` without a file or with an
            unknown name.
    """
    words: list[str] = []
    for word in flags:
        words += word.split("=", 1) if word.startswith(f"{_CONFIG}=") else [word]
    parser = launch_command_parser()
    parser.error = _refuse
    try:
        return parser.parse_args(resolve_accelerate_config_argument(words))
    except ValueError as error:
        raise ValueError(f"accelerate's launcher: {error}") from None


def _refuse(message: str) -> NoReturn:
    """Instead of printing the launcher's usage, of two hundred lines, and leaving."""
    raise ValueError(message)


def _read_config(arguments: Any) -> Any:
    """The configuration file's object, or None: of the one that is named, else accelerate's own."""
    file = arguments.config_file
    if file is None and not Path(default_config_file).is_file():
        return None
    try:
        config = load_config_from_file(file)
    except Exception as error:  # accelerate's, YAML's, or of a value's type
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{file or default_config_file}: expected a configuration as `accelerate config` "
            f"writes it: {reason}"
        ) from None
    for section, prefix in _SECTIONS.items():
        for key in getattr(config, section):
            # Accelerate takes any key, and does nothing with one that it does not know.
            name = key if key.startswith(prefix) else prefix + key
            if name not in vars(arguments):
                near = difflib.get_close_matches(name, vars(arguments), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{file}: {section} has an unknown key {key!r}{hint}")
    return config


def _engine_settings(arguments: Any, file: Any) -> dict[str, Any]:
    """The file's settings of the engine, as flags that the command line does not give."""
    given: set[str] = getattr(arguments, "nondefault", set())
    found = {}
    for section, prefix in _SECTIONS.items():
        for key, value in (getattr(file, section, None) or {}).items():
            name = key if key.startswith(prefix) else prefix + key
            if name not in given:
                found[name] = value
    return found


def _first(flag: Any, other: Any) -> Any:
    return other if flag is None else flag


def _check_engine(engine: Engine, accelerators: int) -> None:
    """Refuses what this machine cannot start.

    Args:
        engine: what is asked for.
        accelerators: of this machine, 0 on the CPU.

    Raises:
        ValueError: fewer processes than one, or more than there are accelerators; an engine that
            needs accelerators where there are none, or that is not installed.
    """
    processes = engine.processes
    if processes is not None and processes < 1:
        raise ValueError(f"--num_processes: expected at least 1, found {processes}")
    if processes is not None and processes % engine.machines:
        raise ValueError(
            f"--num_processes: expected those of all machines, a multiple of --num_machines "
            f"{engine.machines}, found {processes}"
        )
    if engine.kind == "fsdp1":
        raise ValueError(
            "fsdp_version: expected 2, found 1, which Poise's trainers do not run under; set "
            "fsdp_version to 2 (examples/engines/fsdp2.yaml)"
        )
    if not accelerators and engine.kind.startswith(("fsdp", "zero")):
        raise ValueError(
            f"{engine.kind}: expected accelerators, found the CPU alone, on which accelerate runs "
            "plain data parallelism in its place or fails; leave its flags or its configuration "
            "file out (--num_processes N alone starts N processes on the CPU)"
        )
    if engine.kind.startswith("zero") and find_spec("deepspeed") is None:
        raise ValueError(f"{engine.kind}: deepspeed is not installed; run pip install deepspeed")
    here = engine.here
    if here is not None and here > accelerators > 0:
        raise ValueError(
            f"--num_processes: expected at most {accelerators} a machine, its accelerators, found "
            f"{here}; --use_cpu true runs them on the CPU"
        )
