"""What accelerate's flags and configuration files ask for, before anything is started."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from accelerate.commands.config.config_args import default_config_file, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import DistributedType
from trl.cli.accelerate_config import resolve_accelerate_config_argument

from .arguments import CommandParser

_CONFIG = "--accelerate_config"
# Parts of a configuration file that say how an engine works, and what their keys begin with where
# the launcher's flags do.
_SECTIONS = {"deepspeed_config": "", "fsdp_config": "fsdp_"}
_PLAIN = (None, DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


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


def engine_of(arguments: Any) -> Engine:
    """What `parse_flags` and the configuration file ask for, the flags first, as accelerate does.

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
    kind = next((kind for kind, flag in kinds.items() if flag), None)
    kind = kind or getattr(file, "distributed_type", None)
    given: set[str] = getattr(arguments, "nondefault", set())
    settings = vars(arguments) | {
        name: value for name, value in _sections(file).items() if name not in given
    }
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
            name = _flag(key, prefix)
            if name not in vars(arguments):
                near = difflib.get_close_matches(name, vars(arguments), n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{file}: {section} has an unknown key {key!r}{hint}")
    return config


def _sections(file: Any) -> dict[str, Any]:
    """The file's settings of the engine, by the names of flags."""
    return {
        _flag(key, prefix): value
        for section, prefix in _SECTIONS.items()
        for key, value in (getattr(file, section, None) or {}).items()
    }


def _flag(key: str, prefix: str) -> str:
    return key if key.startswith(prefix) else prefix + key


def check_engine(engine: Engine, accelerators: int) -> None:
    """Refuses what this machine, with so many accelerators (0 on the CPU), cannot start.

    Raises:
        ValueError: fewer processes than one, or more than there are accelerators; an engine that
            needs accelerators where there are none, or that is not installed.
    """
    processes, here = engine.processes, engine.here
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
    if here is not None and here > accelerators > 0:
        raise ValueError(
            f"--num_processes: expected at most {accelerators} a machine, its accelerators, found "
            f"{here}; --use_cpu true runs them on the CPU"
        )
