"""Words for `two_unknowns`: what is counted, what it weighs, and how a domain compares."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnknownWords:
    """One way of telling unknowns; `A` and `B` are plurals.

    `a1`, `b1` are their singulars, `an1`, `an2` the same with an article.

    Args:
        things: Four nouns.
        total: Says that there are `n` of `A` and `B` together.
        difference: Says that there are `n` more `A` than `B`.
        weights: Says that every `A` counts `a`, every `B` counts `b`, all of them `n`.
        ask: Asks for the number of `A`.
    """

    things: tuple[str, str, str, str]
    total: str
    difference: str
    weights: str
    ask: str


PHRASES: dict[str, tuple[UnknownWords, ...]] = {
    "mathematics": (
        UnknownWords(
            ("x|", "y|", "z|", "w|"),
            "The numbers {A} and {B} satisfy {A} + {B} = {n}.",
            "They satisfy {A} - {B} = {n}.",
            "They satisfy {a} * {A} + {b} * {B} = {n}.",
            "What is {A}?",
        ),
        UnknownWords(
            ("p|", "q|", "r|", "s|"),
            "Two integers {A} and {B} have the sum {n}.",
            "The integer {A} minus the integer {B} is {n}.",
            "The expression {a} * {A} + {b} * {B} equals {n}.",
            "Which integer is {A}?",
        ),
        UnknownWords(
            ("u|", "v|", "k|", "m|"),
            "A system of equations contains {A} + {B} = {n}.",
            "The system contains {A} = {B} + {n}.",
            "The system contains {n} = {a} * {A} + {b} * {B}.",
            "What value does the solution give to {A}?",
        ),
    ),
    "medicine": (
        UnknownWords(
            ("tablet", "capsule", "syringe", "vial"),
            "A nurse counts {n} {A} and {B} altogether.",
            "She counts {n} more {A} than {B}.",
            "One {a1} supplies {a} mg, one {b1} {b} mg, and all of them {n} mg.",
            "How many {A} does the nurse count?",
        ),
        UnknownWords(
            ("inpatient", "outpatient", "midwife|midwives", "nurse"),
            "A hospital houses {n} {A} and {B} altogether.",
            "It houses {n} more {A} than {B}.",
            "It plans {a} meals per {a1}, {b} meals per {b1}, and {n} meals in all.",
            "How many {A} does the hospital house?",
        ),
        UnknownWords(
            ("bandage", "plaster", "splint", "sling"),
            "A first-aid room stores {n} {A} and {B} altogether.",
            "The {A} outnumber the {B} by {n}.",
            "Applying one {a1} needs {a} minutes, one {b1} {b} minutes, all of them {n} minutes.",
            "How many {A} does the first-aid room store?",
        ),
    ),
    "law": (
        UnknownWords(
            ("motion", "affidavit", "exhibit", "subpoena"),
            "Counsel filed {A} and {B}, {n} in total.",
            "The {A} filed exceed the {B} filed by {n}.",
            "Each {a1} has {a} pages and each {b1} {b} pages, for {n} pages in total.",
            "How many {A} did counsel file?",
        ),
        UnknownWords(
            ("lease", "deed", "will", "waiver"),
            "A notary certified {A} and {B}, {n} in total.",
            "The {A} certified exceed the {B} certified by {n}.",
            "Each {a1} bears {a} seals and each {b1} {b} seals, for {n} seals in total.",
            "How many {A} did the notary certify?",
        ),
        UnknownWords(
            ("plaintiff", "defendant", "juror", "clerk"),
            "The court summoned {A} and {B}, {n} in total.",
            "The {A} summoned exceed the {B} summoned by {n}.",
            "Each {a1} receives {a} notices and each {b1} {b} notices, for {n} notices in total.",
            "How many {A} did the court summon?",
        ),
    ),
    "science": (
        UnknownWords(
            ("proton", "neutron", "electron", "photon"),
            "A detector registers a combined {n} {A} and {B}.",
            "The surplus of {A} over {B} is {n}.",
            "{an1} triggers {a} pulses, {an2} {b} pulses, and the detector emits {n} pulses.",
            "How many {A} does the detector register?",
        ),
        UnknownWords(
            ("beetle", "spider", "moth", "snail"),
            "A biologist observes a combined {n} {A} and {B}.",
            "Her log has a surplus of {n} {A} over {B}.",
            "{an1} eats {a} grams, {an2} {b} grams, and the whole sample {n} grams.",
            "How many {A} does the biologist observe?",
        ),
        UnknownWords(
            (
                "thermometer",
                "barometer",
                "sensor",
                "camera",
            ),
            "A weather station runs a combined {n} {A} and {B}.",
            "The station has a surplus of {n} {A} over {B}.",
            "{an1} sends {a} readings, {an2} {b} readings, and the network {n} readings.",
            "How many {A} does the weather station run?",
        ),
    ),
    "logistics": (
        UnknownWords(
            ("van", "truck", "trailer", "forklift"),
            "A fleet is made up of {n} vehicles, all {A} or {B}.",
            "The fleet would have equally many if {n} of the {A} were sold.",
            "Any {a1} takes {a} pallets, any {b1} {b} pallets, and the fleet {n} pallets.",
            "How many {A} belong to the fleet?",
        ),
        UnknownWords(
            ("crate", "barrel", "drum", "sack"),
            "A freighter loads {n} pieces, all {A} or {B}.",
            "Unloading {n} of the {A} would leave as many {A} as {B}.",
            "Any {a1} fills {a} slots, any {b1} {b} slots, and the cargo {n} slots.",
            "How many {A} does the freighter load?",
        ),
        UnknownWords(
            ("parcel", "letter", "pallet", "tube"),
            "A courier delivers {n} items, all {A} or {B}.",
            "Without {n} of the {A}, the courier would carry as many {A} as {B}.",
            "Any {a1} costs {a} euros, any {b1} {b} euros, and the tour {n} euros.",
            "How many {A} does the courier deliver?",
        ),
    ),
    "sports": (
        UnknownWords(
            ("goal", "penalty|penalties", "corner", "save"),
            "A season ends with {A} and {B} adding up to {n}.",
            "It ends with {A} ahead of {B} by {n}.",
            "For {an1} the team scores {a} points, for {an2} {b}, finishing on {n} points.",
            "How many {A} come in that season?",
        ),
        UnknownWords(
            ("dunk", "layup", "rebound", "steal"),
            "A forward makes {A} and {B} adding up to {n}.",
            "His {A} beat his {B} by {n}.",
            "For {an1} the forward scores {a} points, for {an2} {b}, finishing on {n} points.",
            "How many {A} does the forward make?",
        ),
        UnknownWords(
            (
                "home win",
                "away win",
                "derby win",
                "cup win",
            ),
            "A league team collects {A} and {B} adding up to {n}.",
            "Its {A} are ahead of its {B} by {n}.",
            "For {an1} the league awards {a} points, for {an2} {b}, finishing on {n} points.",
            "How many {A} does the league team collect?",
        ),
    ),
}
