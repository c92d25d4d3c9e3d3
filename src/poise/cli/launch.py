"""Starts a training command under accelerate's launcher, and says how it ended."""

from __future__ import annotations

import logging
import os
import signal
import subprocess

import torch
from accelerate.commands.launch import launch_command
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..threads import use_free_cores
from .engine import check_engine, engine_of, parse_flags

# Exit statuses of a command: it has said in a line what is wrong; another rank has ended.
USERS_MISTAKE, LOST_RANK = 2, 3


class RankFailedError(RuntimeError):
    """A rank ended before its time, and the launcher has stopped the others."""

    exit_status = 1  # which is worth a second try, where that of a user's mistake is not


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
