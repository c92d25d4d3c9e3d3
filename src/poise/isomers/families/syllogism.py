"""Syllogisms over sets: all, no and some; what holds of the first and the last set?

Depth d joins d + 2 sets by d + 1 statements, so that d inferences lead from the first to the
last; two more statements lead elsewhere. Every form has one "no", one "some", and "all" else, so
the words alone do not tell the answer. Only forms are taken whose answer is the same whether or
not sets may be empty, because readers disagree about that.

``data``: ``facts`` as ``[quantifier, a, b]`` with ``"all"``, ``"no"`` or ``"some"``, in the
order of the text; ``query`` as ``["all" | "some", a, b]``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from ..forms import Family, Form, Story, by_mention, way
from .words import read_words, sentence

# A quantifier with the sets that it joins: ("all", 0, 1) says that all of 0 are 1.
Fact = tuple[str, int, int]
ANSWERS = ("no", "unknown", "yes")
# What holds between a, b and b, c -> what holds between a, c. "ball" is "all" read backwards
# (all b are a), "some not" says that some a are not b. Nothing follows from any other two.
JOINED: Mapping[tuple[str | None, str], str] = {
    ("all", "all"): "all",
    ("all", "no"): "no",
    ("some", "all"): "some",
    ("some", "no"): "some not",
    ("some not", "ball"): "some not",
    ("no", "ball"): "no",
    ("ball", "ball"): "ball",
    ("ball", "some"): "some",
}
# What is asked, what holds between the two sets -> the answer; else it is unknown.
DECIDED: Mapping[tuple[str, str | None], str] = {
    ("all", "all"): "yes",
    ("all", "some not"): "no",
    ("some", "some"): "yes",
    ("some", "no"): "no",
}
FORWARD = 0.65  # share of statements that are put in the direction of the chain


def _draw(rng: random.Random, depth: int) -> Form:
    """A random chain of depth + 1 statements, with two others beside it."""
    answer, asked = rng.choice(ANSWERS), rng.choice(("all", "some"))
    while True:
        kinds = rng.sample(["no", "some", *["all"] * (depth + 1)], depth + 3)
        chain = [_fact(rng, kinds[i], i, i + 1) for i in range(depth + 1)]
        query = (asked, 0, depth + 1)
        inferred = _relations(chain, 0)[-1][0]
        if DECIDED.get((asked, inferred), "unknown") != answer:
            continue
        ends = range(depth + 1, depth + 3)
        facts = chain + [_fact(rng, kinds[i], rng.randrange(depth + 2), i + 1) for i in ends]
        if {solve(facts, query, may_be_empty=empty) for empty in (True, False)} == {answer}:
            rng.shuffle(facts)
            number = by_mention(entity for _, a, b in facts for entity in (a, b))
            renamed = [[kind, number[a], number[b]] for kind, a, b in facts]
            data = {"facts": renamed, "query": [asked, number[0], number[depth + 1]]}
            return Form("syllogism", depth, data, answer, ANSWERS)


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """Reasoning: along the chain, what holds between the first set and each next one."""
    words = read_words("syllogism")[domain][phrasing]
    facts, (asked, first, last) = form.data["facts"], form.data["query"]
    count = 1 + max(max(a, b) for _, a, b in facts)
    names = rng.sample(read_words("syllogism", "adjectives")[domain], count)

    def say(kind: str, a: int, b: int) -> str:
        return str(words[kind]).format(**words, x=names[a], y=names[b])

    def reason(kind: str, a: int, b: int) -> str:
        if kind == "ball":
            kind, a, b = "all", b, a
        verb = "are not" if kind == "some not" else "are"
        return f"{kind.split()[0]} {names[a]} {words['nouns']} {verb} {names[b]}"

    steps: list[str] = []
    chain = [facts[place] for place in way([(a, b) for _, a, b in facts], first, last)]
    for fact, (held, end) in zip(chain, _relations(chain, first), strict=True):
        so = f", so {reason(held, first, end)}" if steps and held else ""
        steps.append(f"{reason(*fact)}{so}")
        if not held:
            break
    if form.answer == "unknown":
        whether = "all" if asked == "all" else "any"
        pair = f"{whether} {names[first]} {words['nouns']} are {names[last]}"
        steps.append(f"this leaves open whether {pair}: unknown")
    else:
        steps.append(f"the answer is {form.answer}")
    told = [sentence(say(*fact)) for fact in facts]
    return Story(told, say(f"ask_{asked}", first, last), [*map(sentence, steps)])


def solve(facts: Sequence[Fact], query: Fact, may_be_empty: bool) -> str:
    """The exact answer: yes or no if it holds or fails in all models, else unknown.

    A model says which regions of the Venn diagram are inhabited. "All" and "no" forbid regions;
    "some" (and, unless sets may be empty, each set) wants one of several regions inhabited. As
    regions may be added freely, a region must be inhabited only where such a want has no choice.
    """
    count = 1 + max(max(a, b) for _, a, b in facts)
    regions = set(range(1 << count))
    wants = [] if may_be_empty else [_part("some", i, i, regions) for i in range(count)]
    for kind, a, b in facts:
        if kind == "some":
            wants.append(_part(kind, a, b, regions))
        else:
            regions -= _part(kind, a, b, regions)
    if not all(want & regions for want in wants):
        return "contradiction"
    kind, a, b = query
    there = _part(kind, a, b, regions)
    forced = any(want & regions <= there for want in wants)
    if kind == "all":  # `there` are its counterexamples
        return "no" if forced else "unknown" if there else "yes"
    return "yes" if forced else "unknown" if there else "no"


def _part(kind: str, a: int, b: int, regions: set[int]) -> set[int]:
    """Regions that "all" or "no" forbids, or that "some" wants one of."""
    inside = kind != "all"
    return {r for r in regions if r >> a & 1 and bool(r >> b & 1) == inside}


def _fact(rng: random.Random, kind: str, a: int, b: int) -> Fact:
    return (kind, a, b) if rng.random() < FORWARD else (kind, b, a)


def _relations(chain: Sequence[Fact], end: int) -> list[tuple[str | None, int]]:
    """What holds between the first set and each next one; None once nothing follows."""
    found: list[tuple[str | None, int]] = []
    for kind, a, b in chain:
        link = "ball" if kind == "all" and b == end else kind
        end = b if a == end else a
        found.append((JOINED.get((found[-1][0], link)) if found else link, end))
    return found


FAMILY = Family("syllogism", _draw, _render)
