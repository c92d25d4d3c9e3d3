"""One problem's journey: ask, read, review, ask again with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..forms import TRAIN_DOMAINS
from ..generate import write_completion
from ..meanings import read_answer
from .checks import review
from .journal import Outcome
from .problems import SourceProblem
from .prompts import Failed, MalformedReply, Version, make_messages, parse_reply
from .teachers import RefusedRequest, Teacher


@dataclass(frozen=True)
class Plan:
    """What is wanted of every problem.

    Args:
        domains: In whose words; any names.
        attempts: Most replies of the teacher for one problem in one domain.
        max_overlap: Highest Jaccard index of the content words of two domains. Choice: 0.3, which
            leaves room for the words of a question that every domain needs.
        slack: Most words of one kind of relation by which the counts may differ.
        min_domains: Domains that a set must survive in to be written, None for all of them.

    Raises:
        ValueError: one outside its range.
    """

    domains: tuple[str, ...] = TRAIN_DOMAINS
    attempts: int = 3
    max_overlap: float = 0.3
    slack: int = 1
    min_domains: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("slack", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}: expected {least} or more, found {value!r}")
        if not 0 <= self.max_overlap <= 1:
            raise ValueError(f"max_overlap: expected a value in [0, 1], found {self.max_overlap!r}")
        names, wanted = self.domains, self.min_domains
        if not names or not all(name.strip() for name in names) or len(set(names)) != len(names):
            raise ValueError(f"domains: expected different names, found {list(names)}")
        if wanted is not None and not 1 <= wanted <= len(names):
            raise ValueError(
                f"min_domains: expected 1 to {len(names)}, the number of domains, found {wanted}"
            )

    @property
    def least(self) -> int:
        """Domains that a set must survive in."""
        return len(self.domains) if self.min_domains is None else self.min_domains


def rewrite_everywhere(
    problem: SourceProblem, plan: Plan, teacher: Teacher, done: Mapping[str, Outcome]
) -> Iterator[tuple[Outcome, bool]]:
    """Rewrite a problem in the domains that are missing, one after the other.

    Each is compared with those before it, so that what is kept does not depend on how many
    problems are under way. Choice: where the problem's own domain is asked for and it brings its
    solution, it is taken as it is, and comes first. `done` is what is finished, by domain.

    Yields:
        Each outcome, and whether the teacher gave an answer at all.

    Raises:
        TeacherError: the teacher cannot be asked any more.
    """
    kept = {domain: outcome.prompt for domain, outcome in done.items() if outcome.kept}
    for domain in sorted(plan.domains, key=lambda name: name != problem.domain):
        if domain in done:
            continue
        if domain == problem.domain and problem.solution:
            source = Version(problem.prompt, problem.solution, problem.answer.text)
            outcome, answered = _kept(problem, domain, source, 0), False
        else:
            outcome, answered = _rewrite(problem, domain, plan, teacher, kept)
        if outcome.kept:
            kept[domain] = outcome.prompt
        yield outcome, answered


def _rewrite(
    problem: SourceProblem, domain: str, plan: Plan, teacher: Teacher, others: Mapping[str, str]
) -> tuple[Outcome, bool]:
    failed: Failed | None = None
    for attempt in range(1, plan.attempts + 1):
        messages = make_messages(problem, domain, list(others.values()), failed)
        try:
            reply = teacher.complete(messages)
        except RefusedRequest as error:
            return Outcome(problem.id, domain, False, attempt, reason=str(error)), attempt > 1
        try:
            version = parse_reply(reply)
            faults = review(problem, domain, version, others, plan.max_overlap, plan.slack)
        except MalformedReply as error:
            faults = [str(error)]
        if not faults:
            return _kept(problem, domain, version, attempt), True
        failed = Failed(reply, "; ".join(faults))
    assert failed is not None  # there is at least one attempt
    return Outcome(problem.id, domain, False, plan.attempts, **vars(failed)), True


def _kept(problem: SourceProblem, domain: str, version: Version, attempts: int) -> Outcome:
    prompt, answer = version.prompt, read_answer(version.prompt, version.answer)
    # An option by its words, not by its letter.
    text = answer.text if answer is not None and answer.kind == "option" else version.answer
    completion = write_completion(version.reasoning, text)
    return Outcome(problem.id, domain, True, attempts, prompt, completion, text)
