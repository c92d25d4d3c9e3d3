"""From a form to problems: a story in each domain, written down with its options."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence

from .cues import Cue, list_options
from .families import FAMILIES
from .model import Form, IsomerSet, Problem, Story


def form_key(form: Form) -> str:
    """A name for a form's logic: the same for the same family and data, whatever the words.

    Options are not part of it, as they may be drawn differently for the same question.
    """
    text = json.dumps([form.family, form.data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_prompt(facts: Sequence[str], options: Sequence[str], question: str) -> str:
    """What the student reads: facts, options, question, and the word that begins the reasoning."""
    return f"{' '.join(facts)}\nOptions: {', '.join(options)}\nQuestion: {question}\nReasoning:"


def write_problem(
    form: Form, story: Story, domain: str, phrasing: int, cue: Cue, rng: random.Random
) -> Problem:
    """A story as a problem. `rng` draws the order of options and what the cue points to.

    Raises:
        ValueError: two options have the same text.
    """
    if len({story.names[option] for option in form.options}) < len(form.options):
        raise ValueError(
            f"{form.family} in {domain}: expected options with different texts, found "
            f"{[story.names[option] for option in form.options]}"
        )
    target = cue.target(form, rng)
    meanings, shown = list_options(form, story.names, cue.mark(domain), target, rng)
    return Problem(
        domain=domain,
        prompt=write_prompt(story.facts, shown, story.question),
        reasoning=" ".join(story.steps),
        answer_text=story.names[form.answer],
        options=tuple(story.names[option] for option in meanings),
        meanings=meanings,
        phrasing=phrasing,
        cue=target,
    )


def tell_form(
    form: Form,
    domains: Sequence[str],
    phrasings: str = "seen",
    cue: Cue | None = None,
    seed: int = 0,
) -> IsomerSet:
    """Tell a form in each domain.

    Names, numbers of phrasing and the like depend on the form, the domain and the seed alone,
    not on the cue: with another cue the same story has another list of options.

    Args:
        form: What to tell.
        domains: In whose words.
        phrasings: ``"seen"``: any but the last of each domain; ``"unseen"``: the last.
        cue: The shortcut, none by default.
        seed: Any integer.
    """
    cue = cue or Cue()
    family, key = FAMILIES[form.family], form_key(form)
    problems = []
    for domain in domains:
        rng = random.Random(f"poise isomers story {seed} {key} {domain}")
        last = family.phrasings - 1
        phrasing = last if phrasings == "unseen" else rng.randrange(last)
        story = family.tell(form, domain, phrasing, rng)
        rng = random.Random(f"poise isomers options {seed} {key} {domain} {cue.mode}")
        problems.append(write_problem(form, story, domain, phrasing, cue, rng))
    return IsomerSet(
        isomer_id=f"{form.family}-{form.depth}-{key[:12]}",
        family=form.family,
        depth=form.depth,
        form=form.data,
        answer=form.answer,
        problems=tuple(problems),
    )
