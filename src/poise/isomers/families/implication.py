"""Chains of implications, with and without negation: does the last statement hold?

The statements form a tree of rules "if p then q", each side plain or negated, and one literal is
given. Depth d puts d rules between what is given and what is asked; one or two more rules lead
elsewhere. A rule may be put as its contrapositive. Where the answer is "unknown", one rule of
the chain points the wrong way (affirming the consequent, denying the antecedent).

``data``: ``rules`` as ``[[p, holds], [q, holds]]``, in the order of the text; ``given``, a
literal, in the place ``place``; ``query``, the statement that is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ..forms import Family, Form, Story, by_mention, way
from .words import read_words, sentence

Literal = tuple[int, bool]
ANSWERS = ("no", "unknown", "yes")


def _draw(rng: random.Random, depth: int) -> Form:
    """A random tree of rules with a chain of `depth` rules from the given to the query."""
    answer = rng.choice(ANSWERS)
    literals = [(atom, rng.random() < 0.5) for atom in range(depth + 1)]
    if answer != "unknown":
        literals[-1] = (depth, answer == "yes")
    broken = rng.randrange(depth) if answer == "unknown" else None
    rules = []
    for i in range(depth):
        p, q = literals[i : i + 2]
        if i == broken:
            p, q = q, p
        # Or its contrapositive, as often: so the number of negations says nothing about whether
        # the last statement holds.
        rules.append((p, q) if rng.random() < 0.5 else (_not(q), _not(p)))
    for extra in range(rng.choice((1, 2)) if depth > 1 else 2):
        ends = [rng.randrange(depth + 1), depth + 1 + extra]
        rng.shuffle(ends)
        rules.append(((ends[0], rng.random() < 0.5), (ends[1], rng.random() < 0.5)))
    rng.shuffle(rules)
    number = by_mention(atom for rule in rules for atom, _ in rule)
    data = {
        "rules": [[[number[atom], holds] for atom, holds in rule] for rule in rules],
        "given": [number[0], literals[0][1]],
        "place": rng.randrange(len(rules) + 1),
        "query": number[depth],
    }
    return Form("implication", depth, data, answer, ANSWERS)


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """Reasoning: from the given, rule by rule, as far as the rules lead to the query."""
    words, data = read_words("implication")[domain][phrasing], form.data
    count = 1 + max(atom for rule in data["rules"] for atom, _ in rule)
    subjects = rng.sample(read_words("implication", "statements")[domain], count)

    def clause(literal: Sequence[Any]) -> str:
        subject, complement = subjects[literal[0]]
        return f"{subject} is {'' if literal[1] else 'not '}{complement}"

    facts = [words["rule"].format(p=clause(p), q=clause(q)) for p, q in data["rules"]]
    facts.insert(data["place"], words["known"].format(p=clause(data["given"])))
    first, *others = map(clause, _chain(data["rules"], data["given"], data["query"]))
    steps = [first, *(f"so {other}" for other in others)]
    subject, complement = subjects[data["query"]]
    if form.answer == "unknown":
        steps.append(f"whether {subject} is {complement} does not follow: unknown")
    else:
        steps.append(f"the answer is {form.answer}")
    question = words["question"].format(s=subject, c=complement)
    return Story([*map(sentence, facts)], question, [*map(sentence, steps)])


def _not(literal: Literal) -> Literal:
    return literal[0], not literal[1]


def _chain(rules: Sequence[Any], given: Sequence[Any], query: int) -> list[Literal]:
    """Literals on the way from the given to the query, as far as the rules lead."""
    chain: list[Literal] = [(given[0], given[1])]
    for place in way([(p, q) for (p, _), (q, _) in rules], given[0], query):
        p, q = map(tuple, rules[place])
        if chain[-1] == p:
            chain.append(q)
        elif chain[-1] == _not(q):
            chain.append(_not(p))
        else:
            break
    return chain


FAMILY = Family("implication", _draw, _render)
