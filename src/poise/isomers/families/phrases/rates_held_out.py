"""Words for `rates` in the domains that are held out."""

from __future__ import annotations

from .rate_words import RateWords

HELD_OUT: dict[str, tuple[RateWords, ...]] = {
    "logistics": (
        RateWords(
            ("truck", "pallet", "crate", "barcode label"),
            (
                "The depot loads {b} onto {per}.",
                "The packers stack {b} on {per}.",
                "The printer spits out {b} for {per}.",
            ),
            "The fleet sends out {x}.",
            "The northern and the southern hub divide up the {B} {p} to {q}.",
            ("How many {B} does the fleet haul?", "How many {B} reach the northern hub?"),
            (
                "{x} fill {k} hauls of {a}, and the fleet moves {k} * {b} = {y} {B}.",
                "With {x} the fleet moves {k} * {b} = {y} {B}.",
                "Each of {n} loads is {x} / {n} = {k}, the north hauling {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("delivery route", "litre of diesel|litres of diesel", "km|", "parcel"),
            (
                "A courier van burns {b} on {per}.",
                "It drives {b} with {per}.",
                "The driver drops off {b} along {per}.",
            ),
            "Dispatch plans {x}.",
            "The express and the standard service handle the {B} {p} to {q}.",
            ("How many {B} does dispatch plan for?", "How many {B} belong to the express service?"),
            (
                "Dispatch fits {a} into {x} {k} times, planning {k} * {b} = {y} {B}.",
                "Dispatch plans {k} times {b}: {k} * {b} = {y} {B}.",
                "Dispatch cuts {x} into {n} drops of {k}, so express handles {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("container", "forklift trip", "shelf space", "carton"),
            (
                "At the port, unloading costs {b} for {per}.",
                "The warehouse fills {b} with {per}.",
                "Storekeepers fit {b} into {per}.",
            ),
            "A ship lands {x}.",
            "Aisle one and aisle two store the {B} {p} to {q}.",
            ("How many {B} must the port handle?", "How many {B} end up in aisle one?"),
            (
                "{x} occupy {k} shifts of {a}, handling {k} * {b} = {y} {B}.",
                "{x} occupy {k} shifts, handling {k} * {b} = {y} {B}.",
                "A stack is {x} / {n} = {k} for {n} stacks, aisle one storing {p} * {k} = {y} {B}.",
            ),
        ),
    ),
    "sports": (
        RateWords(
            ("lap", "sprint", "push-up", "bonus point"),
            (
                "A coach puts {b} into {per}.",
                "Athletes do {b} after {per}.",
                "The club awards {b} for {per}.",
            ),
            "This training has {x}.",
            "Captain and goalkeeper earn the {B} {p} to {q}.",
            ("How many {B} does the training add up to?", "How many {B} does the captain earn?"),
            (
                "{x} mean {k} sets of {a}, adding up to {k} * {b} = {y} {B}.",
                "{x} add up to {k} * {b} = {y} {B}.",
                "They earn {n} tallies of {x} / {n} = {k}, the captain {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("match|matches", "goal", "fan chant", "drum roll"),
            (
                "A striker scores {b} in {per}.",
                "The crowd sings {b} after {per}.",
                "The band plays {b} with {per}.",
            ),
            "The season has {x}.",
            "Home and away games see the {B} {p} to {q}.",
            ("How many {B} does the season see?", "How many {B} do home games see?"),
            (
                "{x} are {k} streaks of {a}, worth {k} * {b} = {y} {B}.",
                "{x} are worth {k} * {b} = {y} {B}.",
                "The {x} are {n} streaks of {k}, so home games see {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("tournament round", "serve", "tennis rally|tennis rallies", "winning shot"),
            (
                "A tennis player hits {b} in {per}.",
                "She starts {b} with {per}.",
                "She plays {b} in {per}.",
            ),
            "Her year brings {x}.",
            "The opening and the closing set saw these {B} {p} to {q}.",
            ("How many {B} does she rack up?", "How many {B} did the opening set see?"),
            (
                "Her {x} are {k} times {a}: she racks up {k} * {b} = {y} {B}.",
                "She racks up {k} * {b} = {y} {B}.",
                "The sets saw {n} bursts of {x} / {n} = {k}, the opening set {p} * {k} = {y} {B}.",
            ),
        ),
    ),
}
