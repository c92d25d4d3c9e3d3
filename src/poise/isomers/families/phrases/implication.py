"""Statements that hold or do not hold, and ways to join them, in each domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Statements as subject and complement: "the graph" is, or is not, "connected".
STATEMENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "mathematics": (
        *(("the graph", "connected"), ("the set", "finite"), ("the series", "convergent")),
        *(("the map", "continuous"), ("the matrix", "invertible"), ("the group", "abelian")),
        *(("the ring", "commutative"), ("the function", "bounded"), ("the space", "compact")),
        *(("the form", "symmetric"), ("the sequence", "monotone"), ("the operator", "linear")),
    ),
    "medicine": (
        *(("the wound", "clean"), ("the scan", "clear"), ("the pulse", "regular")),
        *(("the fever", "high"), ("the patient", "stable"), ("the ward", "full")),
        *(("the swab", "sterile"), ("the dose", "safe"), ("the skin", "pale")),
        *(("the lung", "inflamed"), ("the airway", "open"), ("the bone", "broken")),
    ),
    "law": (
        *(("the contract", "valid"), ("the witness", "reliable"), ("the claim", "admissible")),
        *(("the appeal", "late"), ("the debt", "due"), ("the will", "signed")),
        *(("the lease", "binding"), ("the search", "lawful"), ("the seller", "insured")),
        *(("the notice", "timely"), ("the fine", "payable"), ("the tenant", "liable")),
    ),
    "science": (
        *(("the solution", "acidic"), ("the alloy", "magnetic"), ("the enzyme", "active")),
        *(("the gas", "inert"), ("the crystal", "brittle"), ("the cell", "alive")),
        *(("the beam", "polarized"), ("the reaction", "reversible"), ("the lens", "concave")),
        *(("the star", "variable"), ("the soil", "saline"), ("the film", "conductive")),
    ),
    "logistics": (
        *(("the truck", "loaded"), ("the dock", "free"), ("the parcel", "stamped")),
        *(("the route", "open"), ("the driver", "awake"), ("the order", "urgent")),
        *(("the crate", "sealed"), ("the port", "closed"), ("the stock", "low")),
        *(("the invoice", "paid"), ("the pallet", "wrapped"), ("the ferry", "delayed")),
    ),
    "sports": (
        *(("the pitch", "dry"), ("the captain", "fit"), ("the match", "sold out")),
        *(("the keeper", "hurt"), ("the referee", "strict"), ("the team", "rested")),
        *(("the coach", "present"), ("the stadium", "packed"), ("the striker", "eligible")),
        *(("the lane", "wet"), ("the final", "postponed"), ("the relay", "cancelled")),
    ),
}


@dataclass(frozen=True)
class Wording:
    """How rules, what is known, and questions are put.

    Args:
        rule: "{p}" has the consequence "{q}"; both are clauses.
        known: "{p}" holds.
        question: Asks whether subject "{s}" is "{c}".
    """

    rule: str
    known: str
    question: str


PHRASES: Mapping[str, tuple[Wording, ...]] = {
    "mathematics": (
        Wording("if {p}, then {q}", "we know that {p}", "Is {s} {c}?"),
        Wording("whenever {p}, {q}", "it has been proved that {p}", "Is {s} {c}?"),
        Wording("suppose that {p}; then {q}", "it is given that {p}", "Must {s} be {c}?"),
    ),
    "medicine": (
        Wording("if {p}, then {q}", "the nurse reports that {p}", "Is {s} {c}?"),
        Wording("when {p}, {q}", "today {p}", "Is {s} {c} today?"),
        Wording(
            "as soon as {p}, it is certain that {q}",
            "the doctor finds that {p}",
            "Would you say that {s} is {c}?",
        ),
    ),
    "law": (
        Wording("if {p}, then {q}", "the court finds that {p}", "Is {s} {c}?"),
        Wording("provided that {p}, {q}", "it is agreed that {p}", "Is {s} {c}?"),
        Wording(
            "where {p}, the law says that {q}", "both sides admit that {p}", "Is {s} {c} in law?"
        ),
    ),
    "science": (
        Wording("if {p}, then {q}", "a test shows that {p}", "Is {s} {c}?"),
        Wording("every time {p}, {q}", "we observe that {p}", "Is {s} {c}?"),
        Wording(
            "in case {p}, theory predicts that {q}",
            "a measurement confirms that {p}",
            "Does it turn out that {s} is {c}?",
        ),
    ),
    "logistics": (
        Wording("if {p}, then {q}", "the dispatcher says that {p}", "Is {s} {c}?"),
        Wording("once {p}, {q}", "the log says that {p}", "Is {s} {c}?"),
        Wording("on days when {p}, {q}", "this is a day when {p}", "Is {s} {c} today?"),
    ),
    "sports": (
        Wording("if {p}, then {q}", "the club says that {p}", "Is {s} {c}?"),
        Wording("each time {p}, {q}", "this time {p}", "Is {s} {c} this time?"),
        Wording("fans know that when {p}, {q}", "the reporter says that {p}", "So, is {s} {c}?"),
    ),
}
