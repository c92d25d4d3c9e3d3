"""Isomer sets from a user's own problems: resumable, parallel over problems."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .journal import Journal, Outcome, write_lines
from .problems import SourceProblem, digest
from .retell import Plan, tell_everywhere
from .teachers import Teacher, TeacherError

# So many problems refused before a single answer mean that the settings are wrong.
_TOO_MANY_REFUSED = 3


@dataclass(frozen=True)
class Summary:
    """What came of a build.

    Args:
        sets: Isomer sets that were written.
        problems: Problems that there were.
        kept: Domain -> retellings that were kept.
        rejected: Domain -> retellings that were not.
    """

    sets: int
    problems: int
    kept: Counter[str]
    rejected: Counter[str]


def open_journal(
    output: Path, problems: Sequence[SourceProblem], plan: Plan, teacher: Teacher
) -> Journal:
    """The journal beside an output; it holds what shapes the outcomes, which `min_domains` and
    speed do not.

    Raises:
        JournalError: it was begun with other settings, or is damaged.
    """
    settings = {
        "problems": digest(problems),
        "domains": list(plan.domains),
        "teacher": teacher.name,
        "sampling": dict(teacher.sampling),
        "attempts": plan.attempts,
        **asdict(plan.limits),
    }
    return Journal(beside(output, "journal"), settings)


def beside(output: Path, what: str) -> Path:
    """The file of that purpose beside an output: ``isomers.journal.jsonl``."""
    return output.with_name(f"{output.stem}.{what}.jsonl")


def missing(journal: Journal, problems: Sequence[SourceProblem], plan: Plan) -> int:
    """How many pairs of problem and domain are to be done."""
    pairs = ((problem.id, domain) for problem in problems for domain in plan.domains)
    return sum(pair not in journal.outcomes for pair in pairs)


def tell_all(
    journal: Journal, problems: Sequence[SourceProblem], plan: Plan, teacher: Teacher
) -> None:
    """Do what the journal lacks, with a progress bar; every outcome is written when it comes.

    Raises:
        TeacherError: the teacher cannot be asked any more; what was under way is awaited and kept.
    """
    todo = []
    for problem in problems:
        pairs = ((d, journal.outcomes.get((problem.id, d))) for d in plan.domains)
        done = {domain: outcome for domain, outcome in pairs if outcome is not None}
        if len(done) < len(plan.domains):
            todo.append((problem, done))
    total = len(problems) * len(plan.domains)
    bar = tqdm(
        total=total, initial=total - missing(journal, problems, plan), desc="retelling", unit=""
    )
    count = Counter("kept" if o.kept else "rejected" for o in journal.outcomes.values())
    with bar:
        works = [
            lambda item=item: tell_everywhere(item[0], plan, teacher, item[1]) for item in todo
        ]
        for outcome in _hold_refusals(journal, _in_threads(works, teacher.concurrency)):
            journal.write(outcome)
            count["kept" if outcome.kept else "rejected"] += 1
            bar.set_postfix(count, refresh=False)
            bar.update()


def finish(
    journal: Journal, problems: Sequence[SourceProblem], plan: Plan, output: Path
) -> Summary:
    """Write the output and the rejects, each in one step, from the journal.

    Returns:
        What came of it; without a single set there is no output.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    sets = 0
    for problem in problems:
        outcomes = [journal.outcomes[problem.id, domain] for domain in plan.domains]
        kept = [outcome for outcome in outcomes if outcome.kept]
        rejects += [_reject(outcome) for outcome in outcomes if not outcome.kept]
        if len(kept) < plan.least:
            reason = f"its set survived in {len(kept)} domains, {plan.least} are asked for"
            rejects += [_reject(outcome, reason) for outcome in kept]
            continue
        sets += 1
        rows += [_row(problem, outcome) for outcome in kept]
    write_lines(beside(output, "rejects"), rejects)
    if rows:
        write_lines(output, rows)
    done = journal.outcomes.values()
    return Summary(
        sets,
        len(problems),
        Counter(outcome.domain for outcome in done if outcome.kept),
        Counter(outcome.domain for outcome in done if not outcome.kept),
    )


def _row(problem: SourceProblem, outcome: Outcome) -> dict[str, Any]:
    return {
        "isomer_id": problem.id,
        "domain": outcome.domain,
        "prompt": outcome.prompt,
        "completion": outcome.completion,
        "answer": problem.answer.logical,
        "answer_text": outcome.answer_text,
    }


def _reject(outcome: Outcome, reason: str | None = None) -> dict[str, Any]:
    said = {"prompt": outcome.prompt, "completion": outcome.completion, "reply": outcome.reply}
    return {
        "isomer_id": outcome.id,
        "domain": outcome.domain,
        "reason": reason or outcome.reason,
        "attempts": outcome.attempts,
        **{name: text for name, text in said.items() if text},
    }


Told = tuple[Outcome, bool]
Work = Callable[[], Iterator[Told]]
Results = queue.SimpleQueue[Told | BaseException | None]


def _hold_refusals(journal: Journal, told: Iterable[Told]) -> Iterator[Outcome]:
    """Hold refusals back until something is answered: a wrong setting refuses every request, and
    its refusals must not be taken for the problems' own."""
    held: list[Outcome] = []
    hopeful = any(outcome.attempts for outcome in journal.outcomes.values())
    for outcome, answered in told:
        hopeful = hopeful or answered
        if not (hopeful or outcome.kept):
            held.append(outcome)
            if len({refused.id for refused in held}) >= _TOO_MANY_REFUSED:
                raise TeacherError(f"every request is refused: {outcome.reason}")
            continue
        if hopeful:
            yield from held
            held.clear()
        yield outcome
    yield from held


def _in_threads(works: Sequence[Work], count: int) -> Iterator[Told]:
    """What works yield, as it comes, from so many threads.

    The threads are daemons, so that an interruption waits for no reply.

    Raises:
        Exception: the first that a work raises, after what is under way has come.
    """
    tasks: queue.SimpleQueue[Work] = queue.SimpleQueue()
    results: Results = queue.SimpleQueue()
    stop = threading.Event()
    for work in works:
        tasks.put(work)
    threads = min(count, len(works))
    for _ in range(threads):
        threading.Thread(target=_run, args=(tasks, results, stop), daemon=True).start()
    try:
        yield from _until_all_end(results, threads)
    finally:
        stop.set()


def _run(tasks: queue.SimpleQueue[Work], results: Results, stop: threading.Event) -> None:
    """A thread: does tasks until there are none or one fails, and says with None that it ends."""
    try:
        while not stop.is_set():
            for told in tasks.get_nowait()():
                results.put(told)
                if stop.is_set():
                    break
    except queue.Empty:
        pass
    except BaseException as error:
        stop.set()
        results.put(error)
    finally:
        results.put(None)


def _until_all_end(results: Results, running: int) -> Iterator[Told]:
    """What so many threads send; then the first failure among it is raised."""
    first: BaseException | None = None
    while running:
        item = results.get()
        if item is None:
            running -= 1
        elif isinstance(item, BaseException):
            first = first or item
        else:
            yield item
    if first is not None:
        raise first
