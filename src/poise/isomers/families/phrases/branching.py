"""Rules with a threshold in each domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ruling:
    """One way of telling rules.

    Args:
        quantities: Names of what is measured, at least five.
        value: The quantity "{q}" has the value "{v}".
        first: The first rule: "{q}" compared ("{when}": above or below) with "{t}" decides between
            "{then}" and "{other}".
        later: A rule that counts only if another one has led to "{q}".
        go_on: The order to go on to "{q}".
        do: The order that outcome "{x}" is.
        question: Asks for the outcome.
    """

    quantities: tuple[str, ...]
    value: str
    first: str
    later: str
    go_on: str
    do: str
    question: str


FIRST = "if {q} is {when} {t}, {then}; otherwise, {other}"


def _ruling(
    quantities: str, go_on: str, going_on: str, do: str, question: str, value: str = "{q} is {v}"
) -> Ruling:
    return Ruling(
        quantities=tuple(quantities.split(", ")),
        value=value,
        first=FIRST,
        later=f"when {going_on} {{q}}: if it is {{when}} {{t}}, {{then}}; otherwise, {{other}}",
        go_on=f"{go_on} {{q}}",
        do=do,
        question=question,
    )


def _unseen(quantities: str, go_on: str, do: str, question: str) -> Ruling:
    return Ruling(
        quantities=tuple(quantities.split(", ")),
        value="{q} stands at {v}",
        first="{then} in case {q} is {when} {t}, and {other} if not",
        later=(
            f"those who {go_on} {{q}} {{then}} in case it is {{when}} {{t}}, and {{other}} if not"
        ),
        go_on=f"{go_on} {{q}}",
        do=do,
        question=question,
    )


PHRASES: Mapping[str, tuple[Ruling, ...]] = {
    "mathematics": (
        _ruling(
            "the degree, the rank, the order, the index, the dimension, the norm",
            *("compute", "computing", "use the method of {x}", "Whose method is to be used?"),
        ),
        _ruling(
            "the sum, the product, the mean, the median, the range, the mode",
            *("look at", "looking at", "apply the rule of {x}", "Whose rule applies?"),
        ),
        _unseen(
            "the length, the width, the height, the area, the volume, the slope",
            *("turn to", "cite the theorem of {x}", "Whose theorem should one cite?"),
        ),
    ),
    "medicine": (
        _ruling(
            "the age, the weight, the risk score, the iron level, the sugar level, the pulse",
            *("check", "checking", "give {x}", "Which drug is given?"),
        ),
        _ruling(
            "the pain index, the heart rate, the white count, the calcium level, the lung score, "
            "the sleep score",
            *("measure", "measuring", "prescribe {x}", "Which drug is prescribed?"),
        ),
        _unseen(
            "the oxygen index, the cough score, the stress score, the zinc level, the blood value, "
            "the fluid loss",
            *("assess", "administer {x}", "What should the doctors administer?"),
        ),
    ),
    "law": (
        _ruling(
            "the damage, the delay, the fine, the rent, the debt, the deposit",
            *("examine", "examining", "send the case to {x}", "Where does the case go?"),
        ),
        _ruling(
            "the fee, the claim, the share, the penalty, the tax, the loss",
            *("consider", "considering", "order {x}", "What does the judge order?"),
        ),
        _unseen(
            "the price, the interest, the bond, the award, the bail, the arrears fee",
            *("weigh", "propose {x}", "What will the clerks propose?"),
        ),
    ),
    "science": (
        _ruling(
            "the density, the acidity, the voltage, the mass, the pressure, the current",
            *("measure", "measuring", "coat the probe with {x}", "What coats the probe?"),
        ),
        _ruling(
            "the humidity, the hardness, the charge, the flux, the yield, the salinity",
            *("record", "recording", "add {x}", "What is added?"),
        ),
        _unseen(
            "the frequency, the purity, the strain, the torque, the energy, the glow",
            *("determine", "choose an electrode of {x}", "Which material should be chosen?"),
        ),
    ),
    "logistics": (
        _ruling(
            "the load, the distance, the volume, the backlog, the cost, the fuel",
            *("check", "checking", "ship by {x}", "How are the goods shipped?"),
        ),
        _ruling(
            "the tonnage, the mileage, the queue, the toll, the stock, the wait",
            *("review", "reviewing", "deliver by {x}", "How are the goods delivered?"),
        ),
        _unseen(
            "the freight rate, the route length, the crate count, the duty, the traffic",
            *("inspect", "transport by {x}", "What means of transport results?"),
        ),
    ),
    "sports": (
        _ruling(
            "the lap count, the pulse, the fatigue, the lead, the speed, the score",
            *("check", "checking", "train with {x}", "What does the squad train with?"),
        ),
        _ruling(
            "the pace, the rank, the strain, the stamina, the power, the form rating",
            *("test", "testing", "assign {x}", "Which exercise is assigned?"),
        ),
        _unseen(
            "the jump height, the throw mark, the sprint rating, the serve speed, the win rate, "
            "the grip strength",
            *("judge", "practice {x}", "What will the athletes practice?"),
        ),
    ),
}
