"""Runs what is missing, one after the other or several at once."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ..versions import software_versions
from . import studies
from .experiment import Experiment, Run
from .machine import hardware
from .results import Results

KILLED = (
    "A process of `poise bench run` was killed, perhaps for want of memory, and with it all that "
    "ran beside; fewer --jobs need less. Run the experiment again for what is missing."
)


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    Args:
        run: Which.
        status: "done"; "failed", which leaves no line; or "elsewhere": another process has done it
            or is at it.
        seconds: How long it took.
        error: The traceback of a failed one, or what is known of one that was killed.
    """

    run: Run
    status: Literal["done", "failed", "elsewhere"]
    seconds: float = 0.0
    error: str = ""


def missing(experiment: Experiment) -> list[Run]:
    """The runs without a line, in the order in which they are to run."""
    done, _ = Results(experiment.folder).read()
    return [run for run in experiment.runs() if run.key not in done]


def check_runs(experiment: Experiment) -> None:
    """Ask the study whether it takes the settings of every run.

    Raises:
        ValueError: it does not.
    """
    study = studies.load(experiment.study)
    if hasattr(study, "check"):
        for run in experiment.runs():
            try:
                study.check(run.config)
            except ValueError as error:
                raise ValueError(f"{experiment.name}, {run}: {error}") from None


def run_all(
    experiment: Experiment, runs: Sequence[Run], limit: int | None = None, jobs: int = 1
) -> Iterator[Outcome]:
    """Do runs, and tell of each one when it is over.

    Args:
        experiment: Whose runs they are.
        runs: Which, in this order.
        limit: End after so many that were done or failed here.
        jobs: Processes at once; with 1 the runs are done in this process.
    """
    results = Results(experiment.folder)
    left = len(runs) if limit is None else limit
    if jobs > 1:
        yield from _in_processes(results, iter(runs), left, jobs)
        return
    for run in runs:
        if not left:
            return
        outcome = do(results, run)
        left -= outcome.status != "elsewhere"
        yield outcome


def do(results: Results, run: Run) -> Outcome:
    """Do one run, if nobody else has, and add its line."""
    with results.claim(run.key) as is_ours:
        if not is_ours:
            return Outcome(run, "elsewhere")
        began, clock, busy = datetime.now(UTC), time.perf_counter(), time.process_time()
        try:
            figures = studies.load(run.study).run(dict(run.config))
            seconds = time.perf_counter() - clock
            results.append(
                {
                    "key": run.key,
                    "study": run.study,
                    "config": run.config,
                    "figures": figures,
                    "seconds": round(seconds, 3),
                    "processor_seconds": round(time.process_time() - busy, 3),
                    "time": began.isoformat(timespec="seconds"),
                    "hardware": hardware(),
                    "versions": software_versions(),
                }
            )
        except Exception:  # whatever a study raises, the others go on
            return Outcome(run, "failed", error=traceback.format_exc())
    return Outcome(run, "done", seconds)


def _in_processes(results: Results, runs: Iterator[Run], left: int, jobs: int) -> Iterator[Outcome]:
    # As many threads as there are cores, over all processes; the children read it when they start.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    is_over = False
    while not is_over:  # a child that was killed takes its pool along
        left, is_over = yield from _in_a_pool(results, runs, left, jobs)


def _in_a_pool(
    results: Results, runs: Iterator[Run], left: int, jobs: int
) -> Generator[Outcome, None, tuple[int, bool]]:
    """Runs until all are over or a child is killed; returns how many are left and which it was."""
    under_way: dict[Future[Outcome], Run] = {}
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(under_way) < min(jobs, left) and (run := next(runs, None)):
                under_way[pool.submit(do, results, run)] = run
            if not under_way:
                return left, True
            over = wait(under_way, return_when=FIRST_COMPLETED).done
            is_broken = any(isinstance(f.exception(), BrokenProcessPool) for f in over)
            for future in wait(under_way).done if is_broken else over:
                run = under_way.pop(future)
                killed = isinstance(future.exception(), BrokenProcessPool)
                outcome = Outcome(run, "failed", error=KILLED) if killed else future.result()
                left -= outcome.status != "elsewhere"
                yield outcome
            if is_broken:
                return left, False
