"""Words for the further unknowns of `two_unknowns`, and for its reasoning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinkWords:
    """How a domain compares a further unknown `B` with a known one `A`, and reasons.

    Args:
        more, fewer, times: Say that there are `n` more, fewer, or `n` times as many `B` as `A`.
        half: Concludes `x` of `A` from `sum`, twice as many.
        replaced: With only `B`, the `n` would count `all`; the `excess` over the `gap` is `x`.
        then: Concludes `sum` of `B`.
        ask: Asks for a further unknown `A`.
    """

    more: str
    fewer: str
    times: str
    half: str
    replaced: str
    then: str
    ask: str


LINKS: dict[str, LinkWords] = {
    "mathematics": LinkWords(
        "The number {B} equals {A} + {n}.",
        "The number {B} equals {A} - {n}.",
        "The number {B} equals {n} * {A}.",
        "Eliminating, 2 * {A} = {sum}, so {A} = {x}.",
        "Replacing {A} by {B} gives {all}, with {excess} and coefficients {gap}, so {A} = {x}.",
        "So {B} = {sum}.",
        "Find {A}: which number is it?",
    ),
    "medicine": LinkWords(
        "The hospital lists {n} more {B} than {A}.",
        "The hospital lists {n} fewer {B} than {A}.",
        "The hospital lists {n} times as many {B} as {A}.",
        "Double the {A} is {sum}, so there are {x} {A}.",
        "Were all {B}, the sheet would show {all}; it is off by {excess}, at {gap} each: {x} {A}.",
        "The hospital lists {sum} {B}.",
        "How many {A} does the hospital list?",
    ),
    "law": LinkWords(
        "The record holds {B} exceeding the {A} by {n}.",
        "The record holds {B} falling short of the {A} by {n}.",
        "The record holds {n} {B} for each of the {A}.",
        "Twice the {A} amounts to {sum}, hence {x} {A}.",
        "If only {B} existed, one would have {all}; the discrepancy {excess} over {gap} means {x} "
        "{A}.",
        "The record thus holds {sum} {B}.",
        "How many {A} does the record hold?",
    ),
    "science": LinkWords(
        "The data set shows a surplus of {n} {B} over the {A}.",
        "The data set shows a deficit of {n} {B} against the {A}.",
        "The data set shows {B} at {n} times the level of {A}.",
        "Two times the {A} comes out at {sum}, which implies {x} {A}.",
        "A model with {B} only predicts {all}; the residual {excess} at {gap} each implies {x} "
        "{A}.",
        "The data imply {sum} {B}.",
        "How many {A} do the data imply?",
    ),
    "logistics": LinkWords(
        "Dispatch books {B} at {n} above the {A}.",
        "Dispatch books {B} at {n} below the {A}.",
        "Dispatch books {n} {B} to every one of the {A}.",
        "A twofold load of {A} is {sum}, leaving {x} {A}.",
        "A load of {B} alone is {all}; swapping moves {excess} by {gap} each, leaving {x} {A}.",
        "Dispatch books {sum} {B}.",
        "How many {A} does dispatch book?",
    ),
    "sports": LinkWords(
        "On the scoreboard, {B} lead {A} by {n}.",
        "On the scoreboard, {B} trail {A} by {n}.",
        "On the scoreboard, {B} come to {n} times the {A}.",
        "Doubled, the {A} come to {sum}, so the score is {x} {A}.",
        "Scoring {B} throughout would bring {all}; a margin of {excess} at {gap} each scores {x} "
        "{A}.",
        "The scoreboard reads {sum} {B}.",
        "How many {A} does the scoreboard read?",
    ),
}
