"""Processes for tests that need several: forked from a server that has the imports done."""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

WAIT = 500  # seconds, far more than any of them takes, also on a busy machine

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.invariants.resume_worker",
        "tests.invariants.iga_worker",
        "tests.invariants.kill_worker",
        "tests.equivalence.iga_models",
        "tests.engines",
    ]
)


def start(task: Callable[..., None], *args: Any) -> Any:
    """The process, which runs."""
    process = _CONTEXT.Process(target=_run, args=(task, *args))
    process.start()
    return process


def _run(task: Callable[..., None], *args: Any) -> None:
    gc.freeze()  # as in the suite's own processes
    task(*args)


def finish(task: Callable[..., None], *args: Any) -> None:
    """Runs to its end, without an error."""
    _join([start(task, *args)])


def run_ranks(ranks: int, task: Callable[..., None], *args: Any) -> None:
    """The same as several gloo ranks."""
    _join(start_ranks(ranks, task, *args))


def start_ranks(ranks: int, task: Callable[..., None], *args: Any) -> list[Any]:
    """The ranks' processes, which run."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    return [start(_run_rank, rank, ranks, port, task, *args) for rank in range(ranks)]


def _join(processes: list[Any]) -> None:
    for process in processes:
        process.join(WAIT)
    for process in processes:
        process.kill()  # one that still waits for another that has failed
    assert [process.exitcode for process in processes] == [0] * len(processes)


def _run_rank(rank: int, ranks: int, port: int, task: Callable[..., None], *args: Any) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",  # a GPU alone has no place for two ranks
    }
    task(*args)
    if dist.is_initialized():
        dist.destroy_process_group()
