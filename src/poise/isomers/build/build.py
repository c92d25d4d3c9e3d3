"""Isomer sets from a user's own problems: resumable, parallel over problems."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from ...rows import write_jsonl
from ..forms import TRAIN_DOMAINS
from ..generate import write_completion
from ..meanings import read_answer
from .checks import review
from .journal import Journal, Outcome
from .problems import SourceProblem
from .prompts import (
    MalformedReply,
    Messages,
    RefusedRequest,
    TeacherError,
    Version,
    ask_again,
    make_messages,
    parse_reply,
)

if TYPE_CHECKING:
    from .teachers import Teacher

# Problems refused before a single answer that show that the settings are wrong.
_TOO_MANY_REFUSED = 3


def _argument(default: Any, text: str) -> Any:
    """A field that is a flag of `poise isomers build`."""
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class Plan:
    """What is wanted of every problem, as arguments of `poise isomers build`.

    Choice: 0.3 of the content words leaves room for those of a question that every domain needs.

    Raises:
        ValueError: one outside its range.
    """

    domains: list[str] = _argument(TRAIN_DOMAINS, "Domains to put the problems in; any names.")
    min_domains: int | None = _argument(
        None, "In how many domains a set must survive to be written. By default in all of them."
    )
    attempts: int = _argument(3, "Most replies for one problem in one domain.")
    max_overlap: float = _argument(
        0.3, "Highest share of content words (Jaccard) that two domains of a set may have."
    )
    slack: int = _argument(1, "Most words of one kind of relation that may be added or lost.")

    def __post_init__(self) -> None:
        if isinstance(self.domains, str):  # one alone, from a configuration file
            self.domains = [self.domains]
        names, wanted = self.domains, self.min_domains
        for name, least in (("attempts", 1), ("slack", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: expected {least} or more, found {value!r}")
        if not 0 <= self.max_overlap <= 1:
            raise ValueError(f"max_overlap: expected a value in [0, 1], found {self.max_overlap!r}")
        if not names or not all(name.strip() for name in names) or len(set(names)) != len(names):
            raise ValueError(f"domains: expected different names, found {list(names)}")
        if wanted is not None and not 1 <= wanted <= len(names):
            raise ValueError(
                f"min_domains: expected 1 to {len(names)}, the number of domains, found {wanted}"
            )


class Summary(NamedTuple):
    """What came of a build: how many sets of how many problems, and by domain how many versions
    were kept and rejected."""

    sets: int
    problems: int
    kept: Counter[str]
    rejected: Counter[str]


def beside(output: Path, what: str) -> Path:
    """The file of that purpose beside an output: ``isomers.journal.jsonl``."""
    return output.with_name(f"{output.stem}.{what}.jsonl")


def build(problems: Sequence[SourceProblem], plan: Plan, teacher: Teacher, output: Path) -> Summary:
    """Ask for what the journal beside the output lacks, then write the output and the rejects.

    Raises:
        ValueError: the journal was begun with other settings, or is damaged.
        TeacherError: the teacher cannot be asked any more; what is finished is in the journal.
    """
    told = json.dumps([asdict(problem) for problem in problems], sort_keys=True)
    # What shapes the outcomes, which `min_domains` and speed do not.
    settings = {
        "problems": hashlib.sha256(told.encode()).hexdigest()[:16],
        "domains": list(plan.domains),
        "teacher": teacher.name,
        "sampling": teacher.sampling,
        "attempts": plan.attempts,
        "max_overlap": plan.max_overlap,
        "slack": plan.slack,
    }
    journal = Journal(beside(output, "journal"), settings)
    if len(journal.outcomes) < len(problems) * len(plan.domains):
        teacher.check()
        _rewrite_all(journal, problems, plan, teacher)
    return _write_sets(journal, problems, plan, output)


def _rewrite_all(
    journal: Journal, problems: Sequence[SourceProblem], plan: Plan, teacher: Teacher
) -> None:
    """Rewrite in threads, with a progress bar; every outcome is written when it comes.

    All is held back until something is answered: a wrong setting refuses every request, and its
    refusals must not be taken for the problems' own.

    Raises:
        TeacherError: the teacher cannot be asked any more; what was under way is awaited and kept.
    """
    lock, held = threading.Lock(), list[Outcome]()
    failures: list[BaseException] = []
    hopeful = any(outcome.attempts for outcome in journal.outcomes.values())
    total, done = len(problems) * len(plan.domains), len(journal.outcomes)

    def write_held() -> None:
        for outcome in held:
            journal.write(outcome)
        bar.update(len(held))
        kept = sum(outcome.kept for outcome in journal.outcomes.values())
        bar.set_postfix(kept=kept, rejected=len(journal.outcomes) - kept, refresh=False)
        held.clear()

    def work(problem: SourceProblem) -> None:
        nonlocal hopeful
        try:
            if failures:
                return
            for outcome, answered in _rewrite(problem, plan, teacher, journal):
                with lock:
                    held.append(outcome)
                    hopeful = hopeful or answered
                    if hopeful:
                        write_held()
                    elif len({one.id for one in held if not one.kept}) >= _TOO_MANY_REFUSED:
                        raise TeacherError(f"every request is refused: {outcome.reason}")
                if failures:
                    return
        except BaseException as error:  # else the pool would wait for its thread
            failures.append(error)

    # Its threads are daemons, so that an interruption waits for no reply.
    threads = ThreadPool(min(teacher.concurrency, len(problems)))
    with tqdm(total=total, initial=done, desc="rewriting", unit="") as bar, threads as pool:
        try:
            for _ in pool.imap_unordered(work, problems):
                pass
        except BaseException as error:
            failures.append(error)  # an interruption: the threads stop, each after its answer
            raise
        if failures:
            raise failures[0]
        write_held()


def _rewrite(
    problem: SourceProblem, plan: Plan, teacher: Teacher, journal: Journal
) -> Iterator[tuple[Outcome, bool]]:
    """Rewrite a problem in the domains that are missing, one after the other.

    Each is compared with those before it, so that what is kept does not depend on how many
    problems are under way. Choice: where the problem's own domain is asked for and it brings its
    solution, it is taken as it is, and comes first.

    Yields:
        Each outcome, and whether the teacher gave an answer at all.
    """
    known = {domain: journal.outcomes.get((problem.id, domain)) for domain in plan.domains}
    others = {domain: old.prompt for domain, old in known.items() if old and old.kept}
    for domain in sorted(plan.domains, key=lambda name: name != problem.domain):
        if known[domain]:
            continue
        if domain == problem.domain and problem.solution:
            source = Version(problem.prompt, problem.solution, problem.answer.text)
            outcome, answered = _kept(problem, domain, source, 0), False
        else:
            outcome, answered = _ask(problem, domain, plan, teacher, others)
        if outcome.kept:
            others[domain] = outcome.prompt
        yield outcome, answered


def _ask(
    problem: SourceProblem, domain: str, plan: Plan, teacher: Teacher, others: Mapping[str, str]
) -> tuple[Outcome, bool]:
    """Ask, read, review, and ask again with the reason."""
    asked, again = make_messages(problem, domain, others.values()), Messages()
    for attempt in range(1, plan.attempts + 1):
        try:
            reply = teacher.complete(asked + again)
        except RefusedRequest as error:
            return Outcome(problem.id, domain, False, attempt, reason=str(error)), attempt > 1
        try:
            version = parse_reply(reply)
            faults = review(problem, domain, version, others, plan.max_overlap, plan.slack)
        except MalformedReply as error:
            faults = [str(error)]
        if not faults:
            return _kept(problem, domain, version, attempt), True
        reason = "; ".join(faults)
        again = ask_again(reply, reason)
    return Outcome(problem.id, domain, False, plan.attempts, reason=reason, reply=reply), True


def _kept(problem: SourceProblem, domain: str, version: Version, attempts: int) -> Outcome:
    prompt, answer = version.prompt, read_answer(version.prompt, version.answer)
    # An option by its words, not by its letter.
    text = answer.text if answer is not None and answer.kind == "option" else version.answer
    completion = write_completion(version.reasoning, text)
    return Outcome(problem.id, domain, True, attempts, prompt, completion, text)


def _write_sets(
    journal: Journal, problems: Sequence[SourceProblem], plan: Plan, output: Path
) -> Summary:
    """Write the output and the rejects from the journal, each in one step; without a single set
    there is no output."""
    least = plan.min_domains or len(plan.domains)
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    sets = 0
    for problem in problems:
        outcomes = [journal.outcomes[problem.id, domain] for domain in plan.domains]
        kept = [outcome for outcome in outcomes if outcome.kept]
        rejects += [_reject(outcome, outcome.reason) for outcome in outcomes if not outcome.kept]
        if len(kept) < least:
            reason = f"its set survived in {len(kept)} domains, {least} are asked for"
            rejects += [_reject(outcome, reason) for outcome in kept]
            continue
        sets += 1
        rows += [
            {
                "isomer_id": problem.id,
                "domain": outcome.domain,
                "prompt": outcome.prompt,
                "completion": outcome.completion,
                "answer": problem.answer.logical,
                "answer_text": outcome.answer_text,
            }
            for outcome in kept
        ]
    write_jsonl(beside(output, "rejects"), rejects)
    if rows:
        write_jsonl(output, rows)
    all_kept, all_rejected = (
        Counter(o.domain for o in journal.outcomes.values() if o.kept == kept)
        for kept in (True, False)
    )
    return Summary(sets, len(problems), all_kept, all_rejected)


def _reject(outcome: Outcome, reason: str) -> dict[str, Any]:
    row = {
        "isomer_id": outcome.id,
        "domain": outcome.domain,
        "reason": reason,
        "attempts": outcome.attempts,
    }
    said = {"prompt": outcome.prompt, "completion": outcome.completion, "reply": outcome.reply}
    return row | {name: text for name, text in said.items() if text}
