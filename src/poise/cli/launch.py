"""What accelerate's launcher is asked for, by flags and files; starts it, and says how it ended."""

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

# Exit statuses of a command: it has said in a line what is wrong; another rank has ended.
USERS_MISTAKE, LOST_RANK = 2, 3
_CONFIG = "--accelerate_config"
_PLAIN = (None, DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


class RankFailedError(RuntimeError):
    """A rank ended before its time, and the launcher has stopped the others."""

    exit_status = 1  # which is worth a second try, where that of a user's mistake is not


@dataclass(frozen=True)
class Engine:
    """What processes do with a model."""

    kind: str  # "ddp", "fsdp1", "fsdp2", "zero0" to "zero3", or accelerate's name of another
    processes: int | None  # on all machines; None where nobody says
    machines: int = 1
    offloads: bool = False  # whether a part of it lies in the CPU's memory
    is_on_cpu: bool = False  # whether accelerators are to be left alone

    @property
    def here(self) -> int | None:
        """Processes of each machine."""
        return None if self.processes is None else self.processes // self.machines


def parse(parser: CommandParser, argv: list[str]) -> tuple[list[Any], list[str]]:
    """The command's parsed dataclasses, and the launcher's flags of file and command line.

    Raises:
        ValueError: a flag that neither of them knows, or a word that belongs to none, which the
            launcher would run in the command's place.
    """
    *parsed, flags = parser.parse_args_and_config(argv, return_remaining_strings=True)
    if flags:
        options = {o for action in launch_command_parser()._actions for o in action.option_strings}
        options.add(_CONFIG)
        for word in flags:
            if word.startswith("-") and word.partition("=")[0] not in options:
                parser.refuse(word, options)
        begun = parse_flags([*flags, "--module", parser.prog]).training_script
        if begun != parser.prog:
            parser.refuse(begun)
    return parsed, flags


def parse_flags(flags: list[str]) -> Any:
    """The launcher's arguments. Raises: ValueError, where the launcher itself would print its usage
    of two hundred lines and leave."""

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    words: list[str] = []
    for word in flags:
        words += word.split("=", 1) if word.startswith(f"{_CONFIG}=") else [word]
    parser = launch_command_parser()
    parser.error = refuse
    try:
        return parser.parse_args(resolve_accelerate_config_argument(words))
    except ValueError as error:
        raise ValueError(f"accelerate's launcher: {error}") from None


def engine_of(arguments: Any) -> Engine:
    """What `parse_flags` and the configuration file ask for, the flags first, as accelerate does.

    Raises:
        ValueError: a configuration file that is not there or cannot be read, an unknown key in it.
    """
    file, sections = _read_config(arguments)
    kinds = {
        DistributedType.DEEPSPEED: arguments.use_deepspeed,
        DistributedType.FSDP: arguments.use_fsdp,
        DistributedType.MULTI_GPU: arguments.multi_gpu,
        DistributedType.XLA: arguments.tpu,
        DistributedType.MEGATRON_LM: arguments.use_megatron_lm,
    }
    kind = next((kind for kind, flag in kinds.items() if flag), None)
    kind = kind or getattr(file, "distributed_type", None)
    given: set[str] = getattr(arguments, "nondefault", set())
    settings = vars(arguments) | {k: v for k, v in sections.items() if k not in given}
    processes, machines = (
        flag if (flag := getattr(arguments, name)) is not None else getattr(file, name, None)
        for name in ("num_processes", "num_machines")
    )
    offloads = False
    if kind == DistributedType.DEEPSPEED:
        stage = settings["zero_stage"]
        name = f"zero{2 if stage is None else stage}"
        places = (settings["offload_optimizer_device"], settings["offload_param_device"])
        offloads = any(place not in (None, "none") for place in places)
    elif kind == DistributedType.FSDP:
        name = f"fsdp{settings['fsdp_version']}"
        offloads = str(settings["fsdp_offload_params"]).lower() == "true"
    else:
        name = "ddp" if kind in _PLAIN else str(kind.value).lower()
    is_on_cpu = bool(arguments.cpu or getattr(file, "use_cpu", False))
    return Engine(name, processes, machines or 1, offloads, is_on_cpu)


def _read_config(arguments: Any) -> tuple[Any, dict[str, Any]]:
    """The configuration file, the one that is named or accelerate's own, None where there is none;
    and its settings of an engine by the names of flags."""
    file = arguments.config_file
    if file is None and not Path(default_config_file).is_file():
        return None, {}
    try:
        config = load_config_from_file(file)
    except Exception as error:  # accelerate's, YAML's, or of a value's type
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{file or default_config_file}: expected a configuration as `accelerate config` "
            f"writes it: {reason}"
        ) from None
    settings = {}
    for section, prefix in {"deepspeed_config": "", "fsdp_config": "fsdp_"}.items():
        for key, value in getattr(config, section).items():
            # Accelerate takes any key, and does nothing with one that it does not know.
            name = prefix + key.removeprefix(prefix)
            if name not in vars(arguments):
                near = difflib.get_close_matches(name, vars(arguments), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{file}: {section} has an unknown key {key!r}{hint}")
            settings[name] = value
    return config, settings


def check_engine(engine: Engine, accelerators: int) -> None:
    """Refuses, by a ValueError, what this machine cannot start with so many accelerators (0 on the
    CPU)."""
    processes, here = engine.processes, engine.here
    if processes is not None and processes < 1:
        raise ValueError(f"--num_processes: expected at least 1, found {processes}")
    if processes is not None and processes % engine.machines:
        raise ValueError(
            "--num_processes: expected those of all machines, a multiple of --num_machines "
            f"{engine.machines}, found {processes}"
        )
    if engine.kind == "fsdp1":
        raise ValueError(
            "fsdp_version: expected 2, found 1, which Poise's trainers do not run under; set "
            "fsdp_version to 2 (examples/engines/fsdp2.yaml)"
        )
    if not accelerators and engine.kind.startswith(("fsdp", "zero")):
        raise ValueError(
            f"{engine.kind}: expected accelerators, found the CPU alone, where accelerate would do "
            "something else; leave its flags or its configuration file out (--num_processes N "
            "alone starts N processes on the CPU)"
        )
    if engine.kind.startswith("zero") and find_spec("deepspeed") is None:
        raise ValueError(f"{engine.kind}: deepspeed is not installed; run pip install deepspeed")
    if here is not None and here > accelerators > 0:
        raise ValueError(
            f"--num_processes: expected at most {accelerators} a machine, its accelerators, found "
            f"{here}; --use_cpu true runs them on the CPU"
        )


def needs_launcher(launch_flags: list[str]) -> bool:
    """Several accelerators, or flags for the launcher; else the command runs in this process, as
    in one that a launcher has started."""
    if "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ:
        return False
    return bool(launch_flags) or torch.cuda.device_count() > 1


def launch(module: str, launch_flags: list[str], argv: list[str], is_on_cpu: bool = False) -> int:
    """Runs `python -m module argv` under accelerate, as `trl` does; returns the exit status.

    Flags are what `accelerate launch` understands, and `--accelerate_config` with a file, or the
    name of a configuration that TRL ships. On the CPU processes leave accelerators alone.

    Raises:
        RankFailedError: one of several processes has failed.
        ValueError: as `engine_of` and `check_engine`, where accelerate would do something else.
    """
    arguments = parse_flags([*launch_flags, "--module", module, *argv])
    engine = engine_of(arguments)
    there = torch.accelerator.device_count()
    is_on_cpu = is_on_cpu or engine.is_on_cpu or not there
    check_engine(engine, 0 if is_on_cpu else there)
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
    """The exit status of a user's mistake, which a rank has named. Raises: RankFailedError, of any
    other end, of the rank that was the first."""
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
