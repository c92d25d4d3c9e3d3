"""Isomer sets from a user's own problems: resumable, parallel over problems."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .journal import Journal, Outcome, write_lines
from .problems import SourceProblem, digest
from .retell import Plan, tell_everywhere
from .teachers import Teacher, TeacherError

# Problems refused before a single answer that show that the settings are wrong.
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
    works = []
    for problem in problems:
        known = {domain: journal.outcomes.get((problem.id, domain)) for domain in plan.domains}
        done = {domain: outcome for domain, outcome in known.items() if outcome is not None}
        if len(done) < len(plan.domains):
            works.append(partial(tell_everywhere, problem, plan, teacher, done))
    total = len(problems) * len(plan.domains)
    initial = total - missing(journal, problems, plan)
    count = Counter("kept" if o.kept else "rejected" for o in journal.outcomes.values())
    with tqdm(total=total, initial=initial, desc="retelling", unit="") as bar:
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


# An outcome, and whether the teacher gave an answer at all.
Result = tuple[Outcome, bool]


def _hold_refusals(journal: Journal, results: Iterable[Result]) -> Iterator[Outcome]:
    """Hold refusals back until something is answered: a wrong setting refuses every request, and
    its refusals must not be taken for the problems' own."""
    held: list[Outcome] = []
    hopeful = any(outcome.attempts for outcome in journal.outcomes.values())
    for outcome, answered in results:
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


def _in_threads(works: Sequence[Callable[[], Iterator[Result]]], count: int) -> Iterator[Result]:
    """What works yield, as it comes, from at most `count` threads.

    The threads are daemons, so that an interruption waits for no reply.

    Raises:
        Exception: the first that a work raises, after what is under way has come.
    """
    left = iter(works)  # of a list, so that threads may share it
    results: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
    failures: list[BaseException] = []
    stop = threading.Event()

    def run() -> None:
        try:
            for work in left:
                for result in work():
                    results.put(result)
                    if stop.is_set():
                        return
                if stop.is_set():
                    return
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            results.put(None)

    running = min(count, len(works))
    for _ in range(running):
        threading.Thread(target=run, daemon=True).start()
    try:
        while running:
            if (result := results.get()) is None:
                running -= 1
            else:
                yield result
        if failures:
            raise failures[0]
    finally:
        stop.set()
