"""Isomer sets from a user's own problems: resumable, parallel over problems."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ...rows import write_jsonl
from .journal import Journal, Outcome
from .problems import SourceProblem, digest
from .rewrite import Plan, rewrite_everywhere
from .teachers import Teacher, TeacherError

# A problem, and domain -> what is finished of it.
Work = tuple[SourceProblem, Mapping[str, Outcome]]
# Problems refused before a single answer that show that the settings are wrong.
_TOO_MANY_REFUSED = 3


class Summary(NamedTuple):
    """What came of a build: how many sets of how many problems, and by domain how many versions
    were kept and rejected."""

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
        ValueError: it was begun with other settings, or is damaged.
    """
    settings = {
        "problems": digest(problems),
        "domains": list(plan.domains),
        "teacher": teacher.name,
        "sampling": dict(teacher.sampling),
        "attempts": plan.attempts,
        "max_overlap": plan.max_overlap,
        "slack": plan.slack,
    }
    return Journal(beside(output, "journal"), settings)


def beside(output: Path, what: str) -> Path:
    """The file of that purpose beside an output: ``isomers.journal.jsonl``."""
    return output.with_name(f"{output.stem}.{what}.jsonl")


def pending(journal: Journal, problems: Sequence[SourceProblem], plan: Plan) -> list[Work]:
    """What the journal lacks."""
    works: list[Work] = []
    for problem in problems:
        known = {domain: journal.outcomes.get((problem.id, domain)) for domain in plan.domains}
        done = {domain: outcome for domain, outcome in known.items() if outcome is not None}
        if len(done) < len(plan.domains):
            works.append((problem, done))
    return works


def rewrite_all(journal: Journal, works: Sequence[Work], plan: Plan, teacher: Teacher) -> None:
    """Do the works in threads, with a progress bar; every outcome is written when it comes.

    Refusals are held back until something is answered: a wrong setting refuses every request, and
    its refusals must not be taken for the problems' own. The threads are daemons, so that an
    interruption waits for no reply.

    Raises:
        TeacherError: the teacher cannot be asked any more; what was under way is awaited and kept.
    """
    left, lock, stop = iter(works), threading.Lock(), threading.Event()
    failures: list[BaseException] = []
    held: list[Outcome] = []
    count = Counter("kept" if o.kept else "rejected" for o in journal.outcomes.values())
    initial, hopeful = count.total(), any(o.attempts for o in journal.outcomes.values())
    total = initial + sum(len(plan.domains) - len(done) for _, done in works)

    def keep(outcome: Outcome, answered: bool) -> None:
        nonlocal hopeful
        hopeful = hopeful or answered
        if not (hopeful or outcome.kept):
            held.append(outcome)
            if len({refused.id for refused in held}) >= _TOO_MANY_REFUSED:
                raise TeacherError(f"every request is refused: {outcome.reason}")
            return
        if hopeful:
            write(*held)
            held.clear()
        write(outcome)

    def write(*outcomes: Outcome) -> None:
        for outcome in outcomes:
            journal.write(outcome)
            count["kept" if outcome.kept else "rejected"] += 1
            bar.set_postfix(count, refresh=False)
            bar.update()

    def run() -> None:
        try:
            for problem, done in left:
                for result in rewrite_everywhere(problem, plan, teacher, done):
                    with lock:
                        keep(*result)
                    if stop.is_set():
                        return
        except BaseException as error:
            failures.append(error)
            stop.set()

    with tqdm(total=total, initial=initial, desc="rewriting", unit="") as bar:
        count_of_threads = min(teacher.concurrency, len(works))
        threads = [threading.Thread(target=run, daemon=True) for _ in range(count_of_threads)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            stop.set()
        if failures:
            raise failures[0]
        write(*held)


def write_sets(
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
        rejects += [_reject(outcome, outcome.reason) for outcome in outcomes if not outcome.kept]
        if len(kept) < plan.least:
            reason = f"its set survived in {len(kept)} domains, {plan.least} are asked for"
            rejects += [_reject(outcome, reason) for outcome in kept]
            continue
        sets += 1
        rows += [_row(problem, outcome) for outcome in kept]
    write_jsonl(beside(output, "rejects"), rejects)
    if rows:
        write_jsonl(output, rows)
    by_domain = {
        is_kept: Counter(o.domain for o in journal.outcomes.values() if o.kept == is_kept)
        for is_kept in (True, False)
    }
    return Summary(sets, len(problems), by_domain[True], by_domain[False])


def _row(problem: SourceProblem, outcome: Outcome) -> dict[str, Any]:
    return {
        "isomer_id": problem.id,
        "domain": outcome.domain,
        "prompt": outcome.prompt,
        "completion": outcome.completion,
        "answer": problem.answer.logical,
        "answer_text": outcome.answer_text,
    }


def _reject(outcome: Outcome, reason: str) -> dict[str, Any]:
    said = {"prompt": outcome.prompt, "completion": outcome.completion, "reply": outcome.reply}
    return {
        "isomer_id": outcome.id,
        "domain": outcome.domain,
        "reason": reason,
        "attempts": outcome.attempts,
        **{name: text for name, text in said.items() if text},
    }
