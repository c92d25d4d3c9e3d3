"""Words for `counting`: who is counted, what they have, and how a domain joins the two."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Joins:
    """How a domain speaks of some of several things, `a`, `b` and `c`.

    Args:
        any, all, none, one: For two things and for three.
        only: The first of two things without the second.
        singles, pairs: Say that `n` is the sum of what single things, and pairs, count.
    """

    any: tuple[str, str]
    all: tuple[str, str]
    none: tuple[str, str]
    one: tuple[str, str]
    only: str
    singles: str
    pairs: str


@dataclass(frozen=True)
class CountWords:
    """One way of telling counts.

    Args:
        things: Three things that can be had.
        total: Says that there are `n` in all.
        fact: Says that `n` of them have `which`.
        ask: Asks how many have `which`.
        step: Concludes that `n` of them have `which`.
    """

    things: tuple[str, str, str]
    total: str
    fact: str
    ask: str
    step: str


JOINS: dict[str, Joins] = {
    "mathematics": Joins(
        any=("{a} or {b} or both", "{a} or {b} or {c}"),
        all=("both {a} and {b}", "all three of {a}, {b} and {c}"),
        none=("neither {a} nor {b}", "none of the three, {a}, {b} and {c}"),
        one=("exactly one of {a} and {b}", "exactly one of the three, {a}, {b} and {c}"),
        only="{a} but not {b}",
        singles="The sum over sets is {n}.",
        pairs="The sum over intersections is {n}.",
    ),
    "medicine": Joins(
        any=("at least one of {a} and {b}", "at least one of {a}, {b} and {c}"),
        all=("{a} together with {b}", "{a} together with {b} and {c}"),
        none=("neither {a} nor {b}", "none of {a}, {b} and {c}"),
        one=("just one of {a} and {b}", "just one of {a}, {b} and {c}"),
        only="{a} without {b}",
        singles="Simple charts give {n}.",
        pairs="Double charts give {n}.",
    ),
    "law": Joins(
        any=("{a}, {b} or the two jointly", "one or more of {a}, {b} and {c}"),
        all=("{a} as well as {b}", "{a} and {b} as well as {c}"),
        none=("neither {a} nor {b}", "not one of {a}, {b} and {c}"),
        one=("precisely one of {a} and {b}", "precisely one of {a}, {b} and {c}"),
        only="{a} to the exclusion of {b}",
        singles="Separately the clerk tallies {n}.",
        pairs="Jointly the clerk tallies {n}.",
    ),
    "science": Joins(
        any=("one or both of {a} and {b}", "any of {a}, {b} and {c}"),
        all=("{a} and {b} simultaneously", "{a}, {b} and {c} simultaneously"),
        none=("neither {a} nor {b}", "no {a}, no {b} and no {c}"),
        one=("only one of {a} and {b}", "only one of {a}, {b} and {c}"),
        only="{a} in the absence of {b}",
        singles="Individual signals add up to {n}.",
        pairs="Coincident signals add up to {n}.",
    ),
    "logistics": Joins(
        any=("{a}, {b} or the pair", "some of {a}, {b} and {c}"),
        all=("{a} plus {b}", "{a} plus {b} plus {c}"),
        none=("neither {a} nor {b}", "nothing out of {a}, {b} and {c}"),
        one=("one and only one of {a} and {b}", "one and only one of {a}, {b} and {c}"),
        only="{a} and no {b}",
        singles="Manifest rows come to {n}.",
        pairs="Shared rows come to {n}.",
    ),
    "sports": Joins(
        any=("{a} and/or {b}", "{a} and/or {b} and/or {c}"),
        all=("{a} along with {b}", "{a} along with {b} and {c}"),
        none=("neither {a} nor {b}", "neither {a} nor {b} nor {c}"),
        one=("a single one of {a} and {b}", "a single one of {a}, {b} and {c}"),
        only="{a} yet not {b}",
        singles="On the solo lists are {n}.",
        pairs="On the duo lists are {n}.",
    ),
}

PHRASES: dict[str, tuple[CountWords, ...]] = {
    "mathematics": (
        CountWords(
            ("even", "square", "positive"),
            "A set has {n} elements.",
            "In the set, {n} elements are {which}.",
            "How many elements are {which}?",
            "Thus {n} elements are {which}.",
        ),
        CountWords(
            ("a right angle", "a line of symmetry", "an inscribed circle"),
            "A geometer draws {n} polygons.",
            "Among the polygons, {n} possess {which}.",
            "How many polygons possess {which}?",
            "Thus {n} polygons possess {which}.",
        ),
        CountWords(
            ("p", "q", "r"),
            "A list contains {n} polynomials.",
            "On the list, {n} polynomials vanish at {which}.",
            "What is the number of polynomials that vanish at {which}?",
            "Hence {n} polynomials vanish at {which}.",
        ),
    ),
    "medicine": (
        CountWords(
            ("aspirin", "insulin", "heparin"),
            "A ward treats {n} patients.",
            "The nurses give {n} patients {which}.",
            "How many patients are given {which}?",
            "By the drug chart, {n} patients are given {which}.",
        ),
        CountWords(
            ("fever", "cough", "nausea"),
            "A doctor examines {n} children.",
            "The doctor finds that {n} children suffer from {which}.",
            "How many children suffer from {which}?",
            "Clinically, {n} children suffer from {which}.",
        ),
        CountWords(
            ("measles", "polio", "tetanus"),
            "A clinic registers {n} newborns.",
            "It vaccinates {n} newborns against {which}.",
            "How many newborns does it vaccinate against {which}?",
            "The vaccination cards show {n} newborns protected against {which}.",
        ),
    ),
    "law": (
        CountWords(
            ("the statute", "the treaty", "the charter"),
            "A court hands down {n} rulings.",
            "A total of {n} rulings cite {which}.",
            "How many rulings cite {which}?",
            "Accordingly {n} rulings cite {which}.",
        ),
        CountWords(
            ("a penalty clause", "an arbitration clause", "a secrecy clause"),
            "A law firm audits {n} contracts.",
            "The audit names {n} contracts that stipulate {which}.",
            "How many contracts stipulate {which}?",
            "Accordingly {n} contracts stipulate {which}.",
        ),
        CountWords(
            ("theft", "fraud", "forgery"),
            "A prosecutor interviews {n} witnesses.",
            "Under oath, {n} witnesses testify to {which}.",
            "How many witnesses testify to {which}?",
            "The record proves that {n} witnesses testify to {which}.",
        ),
    ),
    "science": (
        CountWords(
            ("iron", "zinc", "nickel"),
            "A geologist gathers {n} rock samples.",
            "Spectroscopy detects {which} in {n} rock samples.",
            "In how many rock samples does spectroscopy detect {which}?",
            "It detects {which} in {n} rock samples.",
        ),
        CountWords(
            ("protein R", "protein S", "protein T"),
            "A microscope images {n} cells.",
            "Under the microscope, {n} cells express {which}.",
            "How many cells express {which}?",
            "The images confirm that {n} cells express {which}.",
        ),
        CountWords(
            ("radio waves", "X-rays", "infrared light"),
            "A telescope surveys {n} stars.",
            "The survey records {n} stars that emit {which}.",
            "How many stars emit {which}?",
            "The survey implies {n} stars that emit {which}.",
        ),
    ),
    "logistics": (
        CountWords(
            ("coffee", "rice", "timber"),
            "A freighter carries {n} containers.",
            "Customs notes that {n} containers hold {which}.",
            "How many containers hold {which}?",
            "The freight papers leave {n} containers that hold {which}.",
        ),
        CountWords(
            ("harbour access", "airport access", "rail access"),
            "A haulier owns {n} trucks.",
            "Dispatch equips {n} trucks with {which}.",
            "How many trucks does dispatch equip with {which}?",
            "Dispatch counts {n} trucks with {which}.",
        ),
        CountWords(
            ("cooling", "padding", "insurance"),
            "A depot ships {n} parcels.",
            "The depot books {n} parcels with {which}.",
            "How many parcels does the depot book with {which}?",
            "The booking sheet has {n} parcels with {which}.",
        ),
    ),
    "sports": (
        CountWords(
            ("tennis", "football", "hockey"),
            "A club has {n} members.",
            "At the club, {n} members play {which}.",
            "How many members play {which}?",
            "At the club {n} members therefore play {which}.",
        ),
        CountWords(
            ("gold", "silver", "bronze"),
            "A team sends {n} swimmers.",
            "At the finals, {n} swimmers win {which}.",
            "How many swimmers win {which}?",
            "The medal table has {n} swimmers who win {which}.",
        ),
        CountWords(
            ("the sprint", "the relay", "the marathon"),
            "A race day attracts {n} runners.",
            "The organisers let {n} runners enter {which}.",
            "How many runners enter {which}?",
            "The start lists let {n} runners enter {which}.",
        ),
    ),
}
