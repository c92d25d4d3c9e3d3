"""Comparisons in each domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """One way of comparing.

    Args:
        more: "{a} has more than {b}", without a full stop.
        less: "{a} has less than {b}".
        top: Superlative of the most.
        bottom: Superlative of the least.
        question: Asks for "{rank}", a superlative with its ordinal.
        verdict: "{x}" is "{rank}".
    """

    more: str
    less: str
    top: str
    bottom: str
    question: str
    verdict: str = "The {rank} is {x}"


PHRASES: Mapping[str, tuple[Comparison, ...]] = {
    "mathematics": (
        Comparison(
            "segment {a} is longer than segment {b}",
            "segment {a} is shorter than segment {b}",
            *("longest", "shortest", "Which segment is the {rank}?"),
        ),
        Comparison(
            *("angle {a} is wider than angle {b}", "angle {a} is narrower than angle {b}"),
            *("widest", "narrowest", "Name the {rank} angle."),
        ),
        Comparison(
            *(
                "the number {a} exceeds the number {b}",
                "the number {a} is less than the number {b}",
            ),
            *("largest", "smallest", "Of these numbers, which one is the {rank}?"),
        ),
    ),
    "medicine": (
        Comparison(
            *("{a} has a faster pulse than {b}", "{a} has a slower pulse than {b}"),
            *("fastest", "slowest", "Which patient has the {rank} pulse?"),
            "The {rank} pulse is that of {x}",
        ),
        Comparison(
            "{a} has a higher fever than {b}",
            "{a} has a lower fever than {b}",
            *("highest", "lowest", "Whose fever is the {rank}?"),
            "The {rank} fever is that of {x}",
        ),
        Comparison(
            "the dose of {a} is stronger than that of {b}",
            "the dose of {a} is weaker than that of {b}",
            *("strongest", "weakest", "Among these patients, who gets the {rank} dose?"),
            "The {rank} dose goes to {x}",
        ),
    ),
    "law": (
        Comparison(
            *(
                "the claim of {a} is older than that of {b}",
                "the claim of {a} is newer than that of {b}",
            ),
            *("oldest", "newest", "Which party has the {rank} claim?"),
            "The {rank} claim is that of {x}",
        ),
        Comparison(
            "{a} received a longer sentence than {b}",
            "{a} received a shorter sentence than {b}",
            *("longest", "shortest", "Who received the {rank} sentence?"),
            "The {rank} sentence went to {x}",
        ),
        Comparison(
            "the court fined {a} more heavily than {b}",
            "the court fined {a} more lightly than {b}",
            *("heaviest", "lightest", "On whom did the court impose the {rank} fine?"),
            "The {rank} fine fell on {x}",
        ),
    ),
    "science": (
        Comparison(
            *("sample {a} is denser than sample {b}", "sample {a} is lighter than sample {b}"),
            *("densest", "lightest", "Which sample is the {rank}?"),
        ),
        Comparison(
            *("star {a} is hotter than star {b}", "star {a} is cooler than star {b}"),
            *("hottest", "coolest", "Which star is the {rank}?"),
        ),
        Comparison(
            "alloy {a} melts at a higher temperature than alloy {b}",
            "alloy {a} melts at a lower temperature than alloy {b}",
            *("highest", "lowest", "Which alloy has the {rank} melting point of all?"),
            "The {rank} melting point is that of {x}",
        ),
    ),
    "logistics": (
        Comparison(
            *(
                "the depot in {a} is larger than the one in {b}",
                "the depot in {a} is smaller than the one in {b}",
            ),
            *("largest", "smallest", "Which town has the {rank} depot?"),
            "The {rank} depot is in {x}",
        ),
        Comparison(
            "the truck to {a} is fuller than the truck to {b}",
            "the truck to {a} is emptier than the truck to {b}",
            *("fullest", "emptiest", "Where does the {rank} truck go?"),
            "The {rank} truck goes to {x}",
        ),
        Comparison(
            "shipping to {a} costs more than shipping to {b}",
            "shipping to {a} costs less than shipping to {b}",
            *("dearest", "cheapest", "Of all routes, which destination is the {rank} to ship to?"),
            "The {rank} destination is {x}",
        ),
    ),
    "sports": (
        Comparison(
            *("the {a} are faster than the {b}", "the {a} are slower than the {b}"),
            *("fastest", "slowest", "Which team is the {rank}?"),
            "The {rank} team is the {x}",
        ),
        Comparison(
            "the {a} scored a higher total than the {b}",
            "the {a} scored a lower total than the {b}",
            *("highest", "lowest", "Which team has the {rank} total?"),
            "The {rank} total is that of the {x}",
        ),
        Comparison(
            "the coach of the {a} is stricter than the coach of the {b}",
            "the coach of the {a} is milder than the coach of the {b}",
            *("strictest", "mildest", "Which of these teams has the {rank} coach?"),
            "The {rank} coach is that of the {x}",
        ),
    ),
}
