"""Runs what is missing, one after the other or several at once."""

from __future__ import annotations

import copy
import multiprocessing
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from poise.threads import use_free_cores
from poise.versions import software_versions

from . import studies, validity
from .experiment import Experiment, Run
from .machine import hardware, source
from .results import Results

KILLED = (
    "The process of this run was killed, perhaps for want of memory. Give it more, or run the "
    "experiment again for what is missing."
)
PATIENCE = 3  # runs in a row whose processes are killed, after which nothing more is begun


@dataclass(frozen=True)
class Outcome:
    """What came of one run: "elsewhere" is one that another process has done or is at."""

    run: Run
    status: Literal["done", "failed", "elsewhere"]
    seconds: float = 0.0
    error: str = ""  # the traceback of one that failed, or what is known of one that was killed


def missing(experiment: Experiment) -> list[Run]:
    """The runs without a line, in the order in which they are to run: those of rules first."""
    done, _ = Results(experiment.folder).read()
    runs = [run for run in experiment.runs() if run.key not in done]
    return sorted(runs, key=lambda run: not validity.ruled(experiment, run))


def check(experiment: Experiment, missing: Iterable[Run]) -> None:
    """Ask the study whether it takes the settings of every run, and finds the data of missing ones.

    Raises:
        ValueError: it does not.
    """
    study = studies.load(experiment.study)
    if hasattr(study, "check"):
        for run in experiment.runs():
            try:
                study.check(copy.deepcopy(dict(run.config)))
            except ValueError as error:
                raise ValueError(f"{experiment.name}, {run}: {error}") from None
    if hasattr(study, "check_data"):
        for run in missing:
            study.check_data(run.config)


def run_all(
    experiment: Experiment, runs: Sequence[Run], limit: int | None = None, jobs: int = 1
) -> Iterator[Outcome]:
    """Do runs; yields the outcome of each when it is over.

    Those that a validity rule looks at come first. If it does not hold then, no other is begun.

    Args:
        limit: End after this number of runs that were done or failed here.
        jobs: Processes at once; with 1 the runs are done in this process.

    Raises:
        ValueError: a validity rule does not hold.
    """
    results = Results(experiment.folder)
    left = len(runs) if limit is None else limit
    first = [run for run in runs if validity.ruled(experiment, run)]
    rest = [run for run in runs if not validity.ruled(experiment, run)]
    for outcome in _do_all(results, first, left, jobs):
        left -= outcome.status != "elsewhere"
        yield outcome
    if rest and left:
        validity.require(experiment, results.read()[0])
        yield from _do_all(results, rest, left, jobs)


def _do_all(results: Results, runs: Sequence[Run], left: int, jobs: int) -> Iterator[Outcome]:
    if jobs > 1:
        yield from _in_processes(results, runs, left, jobs)
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
            # A copy: TRL writes into settings such as `model_init_kwargs`.
            figures = studies.load(run.study).run(copy.deepcopy(dict(run.config)))
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
                    "source": source(),
                }
            )
        except Exception:  # whatever a study raises, the others go on
            return Outcome(run, "failed", error=traceback.format_exc())
    return Outcome(run, "done", seconds)


def _in_processes(results: Results, runs: Iterable[Run], left: int, jobs: int) -> Iterator[Outcome]:
    use_free_cores(jobs)  # the children read it when they start
    queue, killed = deque(runs), 0
    while queue and left and killed < PATIENCE:
        left, lost = yield from _in_a_pool(results, queue, left, jobs)
        for run in lost:  # each alone: only the one at fault is killed again
            left, again = yield from _in_a_pool(results, deque([run]), left, 1)
            killed = killed + 1 if again else 0
            if again:
                left -= 1
                yield Outcome(run, "failed", error=KILLED)


def _end_with_the_parent() -> None:
    """Ends this process when the parent is killed: nobody would, and it may hold an accelerator."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _in_a_pool(
    results: Results, queue: deque[Run], left: int, jobs: int
) -> Generator[Outcome, None, tuple[int, list[Run]]]:
    """Does the queue's runs until all are over or a child is killed, which ends the pool.

    Returns how many are left to do, and those that were under way when the pool ended.
    """
    under_way: dict[Future[Outcome], Run] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, initializer=_end_with_the_parent) as pool:
        try:
            while True:
                while queue and len(under_way) < min(jobs, left):
                    future = pool.submit(do, results, queue[0])
                    under_way[future] = queue.popleft()
                if not under_way:
                    return left, []
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    del under_way[future]
                    left -= outcome.status != "elsewhere"
                    yield outcome
        except BrokenProcessPool:
            return left, list(under_way.values())
