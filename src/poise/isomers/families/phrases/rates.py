"""Words for `rates` in the domains to train on."""

from __future__ import annotations

from .rate_words import RateWords

TRAIN: dict[str, tuple[RateWords, ...]] = {
    "mathematics": (
        RateWords(
            ("edge", "face", "vertex|vertices", "diagonal"),
            (
                "A growing solid gains {b} with {per}.",
                "The solid also gains {b} with {per}.",
                "It further gains {b} with {per}.",
            ),
            "The solid has {x}.",
            "Visible and hidden {B} are proportional to {p} and {q}.",
            ("How many {B} does the solid have?", "How many {B} are visible?"),
            (
                "The factor is {x} / {a} = {k}, and {k} * {b} = {y} {B}.",
                "The factor is {k}, and {k} * {b} = {y} {B}.",
                "The factor is {x} / ({p} + {q}) = {k}, and {p} * {k} = {y} {B} are visible.",
            ),
        ),
        RateWords(
            ("triangle", "square", "circle", "hexagon"),
            (
                "The pattern places {b} beside {per}.",
                "The pattern places {b} around {per}.",
                "Finally the pattern places {b} under {per}.",
            ),
            "A pattern is drawn with {x}.",
            "Its {B} are coloured red and blue in the proportion {p} : {q}.",
            ("How many {B} does the pattern have?", "How many {B} are red?"),
            (
                "{x} repeat the block of {a} {k} times: {k} * {b} = {y}.",
                "{x} repeat it {k} times: {k} * {b} = {y}.",
                "Of {p} + {q} = {n} parts of {x} / {n} = {k}, red ones have {p} * {k} = {y}.",
            ),
        ),
        RateWords(
            ("integer", "fraction", "square root", "logarithm"),
            (
                "A table of numbers lists {b} next to {per}.",
                "That table lists {b} after {per}.",
                "It also lists {b} below {per}.",
            ),
            "The table contains {x}.",
            "Even and odd rows keep its {B} in the proportion {p} : {q}.",
            (
                "What is the number of {B} in the table?",
                "What is the number of {B} in even rows?",
            ),
            (
                "The quotient {x} / {a} is {k}, and the product {k} * {b} is {y}.",
                "The product {k} * {b} is {y}.",
                "The sum {p} + {q} is {n}, the quotient {x} / {n} is {k}, the product {p} * {k} is "
                "{y}.",
            ),
        ),
    ),
    "medicine": (
        RateWords(
            ("minute", "mL of saline|", "mg of potassium|", "heartbeat check"),
            (
                "An infusion pump delivers {b} {per}.",
                "The bag supplies {b} with {per}.",
                "The nurse makes {b} for {per}.",
            ),
            "The infusion runs for {x}.",
            "Patient P and patient Q share these {B} {p} to {q}.",
            ("How many {B} does the infusion involve?", "How many {B} does patient P receive?"),
            (
                "{x} hold {k} times {a}, so the pump chart gives {k} * {b} = {y} {B}.",
                "For {x} the pump chart gives {k} * {b} = {y} {B}.",
                "{p} + {q} = {n} doses of {x} / {n} = {k}, so P receives {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            (
                "kg of body weight|",
                "mg of antibiotic|",
                "mL of syrup|",
                "glass of juice|glasses of juice",
            ),
            (
                "A child is prescribed {b} for {per}.",
                "The pharmacist dissolves {per} in {b}.",
                "The leaflet advises {b} with {per}.",
            ),
            "The scales indicate {x}.",
            "Morning and evening doses split the {B} {p} to {q}.",
            (
                "How many {B} should the child take?",
                "How many {B} should the child take in the morning?",
            ),
            (
                "The prescription of {b} applies {k} times in {x}: {k} * {b} = {y} {B}.",
                "The prescription of {b} applies {k} times: {k} * {b} = {y} {B}.",
                "With {n} portions of {x} / {n} = {k}, the morning has {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("patient", "blood tube", "test strip", "pair of gloves|pairs of gloves"),
            (
                "The clinic draws {b} for {per}.",
                "The hospital bench uses up {b} on {per}.",
                "Hygiene standards demand {b} for {per}.",
            ),
            "Today the clinic treats {x}.",
            "Intensive care and surgery use the {B} in shares of {p} and {q}.",
            ("How many {B} does the clinic need?", "How many {B} does intensive care use?"),
            (
                "Treating {x} is {k} times treating {a}, which needs {k} * {b} = {y} {B}.",
                "Treating {x} needs {k} * {b} = {y} {B}.",
                "With {n} shares of {x} / {n} = {k}, intensive care uses {p} * {k} = {y} {B}.",
            ),
        ),
    ),
    "law": (
        RateWords(
            ("hearing day", "motion", "affidavit", "exhibit"),
            (
                "The court decides {b} {per}.",
                "The rules attach {b} to {per}.",
                "The clerk stamps {b} with {per}.",
            ),
            "The docket schedules {x}.",
            "Plaintiff and defendant filed the {B} in the relation {p} to {q}.",
            ("How many {B} will the docket show?", "How many {B} did the plaintiff file?"),
            (
                "The docket's {x} make {k} sittings of {a}; {k} * {b} = {y} {B}.",
                "The docket's {x} make {k} * {b} = {y} {B}.",
                "The parties have {n} lots of {x} / {n} = {k}; the plaintiff filed {p} * {k} = {y} "
                "{B}.",
            ),
        ),
        RateWords(
            ("contract", "clause", "footnote", "citation"),
            (
                "A law firm drafts {b} for {per}.",
                "Its partners append {b} to {per}.",
                "House style prescribes {b} for {per}.",
            ),
            "The client orders {x}.",
            "Senior counsel and the associate write the {B} in the relation {p} to {q}.",
            ("How many {B} must the firm draft?", "How many {B} must senior counsel write?"),
            (
                "The order of {x} is {k} bundles of {a}, hence {k} * {b} = {y} {B}.",
                "The order is {x}, hence {k} * {b} = {y} {B}.",
                "Counsel work on {n} bundles of {x} / {n} = {k}, hence {p} * {k} = {y} {B} for "
                "senior counsel.",
            ),
        ),
        RateWords(
            ("billable hour", "filing", "page of evidence|pages of evidence", "notarised seal"),
            (
                "An attorney completes {b} in {per}.",
                "The statute requires {b} for {per}.",
                "The notary affixes {b} to {per}.",
            ),
            "The invoice bills {x}.",
            "Two heirs are allotted the {B} {p} to {q}, the elder before the younger.",
            ("How many {B} follow from the invoice?", "How many {B} go to the elder heir?"),
            (
                "{x} contain {a} exactly {k} times, therefore {k} * {b} = {y} {B}.",
                "There are {x}, therefore {k} * {b} = {y} {B}.",
                "An allotment is {x} / ({p} + {q}) = {k}, therefore the elder gets {p} * {k} = {y} "
                "{B}.",
            ),
        ),
    ),
    "science": (
        RateWords(
            ("second", "mol of hydrogen|", "mol of water|", "mol of acid|"),
            (
                "A reactor consumes {b} {per}.",
                "The reaction forms {b} from {per}.",
                "Dissolving oxide yields {b} for {per}.",
            ),
            "The experiment lasts {x}.",
            "Flask one and flask two collect the {B} in a mixing ratio of {p} to {q}.",
            ("How many {B} does the reaction yield?", "How many {B} does flask one collect?"),
            (
                "Scaling {a} by {k} reaches {x} and yields {k} * {b} = {y} {B}.",
                "Scaling by {k} yields {k} * {b} = {y} {B}.",
                "Per ratio unit {x} / {n} = {k}, so flask one collects {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            ("metre of cable|metres of cable", "sensor", "reading", "kilobyte"),
            (
                "A probe line carries {b} on {per}.",
                "The logger records {b} from {per}.",
                "The memory stores {per} in {b}.",
            ),
            "The observatory lays out {x}.",
            "Daytime and night observations account for the {B} as {p} to {q}.",
            (
                "How many {B} does the observatory collect?",
                "How many {B} come from daytime observations?",
            ),
            (
                "{x} form {k} segments of {a}, which send {k} * {b} = {y} {B}.",
                "{x} send {k} * {b} = {y} {B}.",
                "One of {n} aliquots is {x} / {n} = {k}; daytime produces {p} * {k} = {y} {B}.",
            ),
        ),
        RateWords(
            (
                "sample",
                "bacterial colony|bacterial colonies",
                "microgram of enzyme|micrograms of enzyme",
                "photon",
            ),
            (
                "A culture study counts {b} in {per}.",
                "Assays extract {b} from {per}.",
                "The detector registers {b} for {per}.",
            ),
            "The biologist cultivates {x}.",
            "The wild type and the mutant contribute to the {B} at {p} to {q}.",
            ("How many {B} does the study measure?", "How many {B} does the wild type contribute?"),
            (
                "{x} equal {k} batches of {a}, and {k} * {b} = {y} {B} are measured.",
                "With {x}, {k} * {b} = {y} {B} are measured.",
                "{x} / ({p} + {q}) = {k} is one aliquot, and {p} * {k} = {y} {B} are wild type.",
            ),
        ),
    ),
}
