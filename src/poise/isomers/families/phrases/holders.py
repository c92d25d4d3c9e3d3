"""Words for the swaps of `state_changes`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HolderWords:
    """Things that are swapped between holders.

    Args:
        things: At least four.
        start: `a` holds `thing`.
        swap: `a` and `b` swap what they hold.
        ask: Who holds `thing` at the end.
        moves: In a swap `thing` goes from `a` to `b`.
        stays: In a swap `thing` stays with `a`.
    """

    things: tuple[str, ...]
    start: str
    swap: str
    ask: str
    moves: str
    stays: str


HOLDERS: dict[str, tuple[HolderWords, ...]] = {
    "mathematics": (
        HolderWords(
            ("pi", "zero", "infinity", "one half"),
            "The variable {a} equals {thing}.",
            "The values of {a} and {b} are exchanged.",
            "Which variable equals {thing} now?",
            "The value {thing} passes from {a} to {b}.",
            "The variable {a} keeps the value {thing}.",
        ),
        HolderWords(
            ("the circle", "the cube", "the cone", "the prism"),
            "At point {a} is {thing}.",
            "A permutation transposes {a} and {b}.",
            "At which point is {thing} after all permutations?",
            "The transposition maps {thing} from {a} to {b}.",
            "The transposition fixes {thing} at {a}.",
        ),
        HolderWords(
            ("the identity matrix", "the zero matrix", "the diagonal matrix", "the inverse matrix"),
            "Let {a} denote {thing}.",
            "Interchange the symbols {a} and {b}.",
            "Which symbol denotes {thing} eventually?",
            "The symbol for {thing} changes from {a} to {b}.",
            "The symbol for {thing} is {a} as before.",
        ),
    ),
    "medicine": (
        HolderWords(
            ("the scalpel", "the syringe", "the tweezers", "the stethoscope"),
            "Nurse {a} uses {thing}.",
            "Nurses {a} and {b} borrow each other's instruments.",
            "Which nurse uses {thing} at the end of the shift?",
            "{a} gives {thing} to {b}.",
            "{a} goes on using {thing}.",
        ),
        HolderWords(
            ("the window bed", "the door bed", "the corner bed", "the corridor bed"),
            "Patient {a} lies in {thing}.",
            "The doctor has {a} and {b} change beds.",
            "Which patient lies in {thing} in the evening?",
            "{a} gives up {thing} to {b}.",
            "{a} remains in {thing}.",
        ),
        HolderWords(
            ("the eye clinic", "the heart clinic", "the skin clinic", "the lung clinic"),
            "Doctor {a} is on call for {thing}.",
            "Doctors {a} and {b} change rotas with each other.",
            "Which doctor is on call for {thing} tonight?",
            "{a} hands over {thing} to {b}.",
            "{a} is on call for {thing} still.",
        ),
    ),
    "law": (
        HolderWords(
            ("the murder case", "the fraud case", "the tax case", "the divorce case"),
            "Judge {a} presides over {thing}.",
            "By order, judges {a} and {b} exchange dockets.",
            "Which judge presides over {thing} at judgment?",
            "By order, {thing} is reassigned from {a} to {b}.",
            "The order leaves {thing} before {a}.",
        ),
        HolderWords(
            ("the farm", "the mill", "the villa", "the vineyard"),
            "By deed {a} owns {thing}.",
            "By contract {a} and {b} convey their estates to each other.",
            "Who owns {thing} under the last contract?",
            "Title to {thing} is conveyed from {a} to {b}.",
            "Title to {thing} is retained by {a}.",
        ),
        HolderWords(
            ("the tenant", "the landlord", "the insurer", "the widow"),
            "Attorney {a} represents {thing}.",
            "By motion, attorneys {a} and {b} substitute for each other.",
            "Which attorney represents {thing} at trial?",
            "On the motion {b} succeeds {a} as attorney for {thing}.",
            "The motion does not affect {a} as attorney for {thing}.",
        ),
    ),
    "science": (
        HolderWords(
            ("the laser", "the lens", "the magnet", "the mirror"),
            "Laboratory {a} operates {thing}.",
            "Laboratories {a} and {b} switch their apparatus.",
            "Which laboratory operates {thing} during the measurement?",
            "Apparatus transfer: {thing} from {a} to {b}.",
            "No transfer: {thing} at {a}.",
        ),
        HolderWords(
            ("the red sample", "the blue sample", "the green sample", "the white sample"),
            "Incubator {a} warms {thing}.",
            "A technician permutes the samples of {a} and {b}.",
            "Which incubator warms {thing} at readout?",
            "The technician shifts {thing} from {a} to {b}.",
            "The technician does not touch {thing} in {a}.",
        ),
        HolderWords(
            ("the comet", "the galaxy", "the nebula", "the pulsar"),
            "Telescope {a} observes {thing}.",
            "Astronomers switch the targets of {a} and {b}.",
            "Which telescope observes {thing} by dawn?",
            "The target {thing} switches from {a} to {b}.",
            "The target of {a} is {thing} again.",
        ),
    ),
    "logistics": (
        HolderWords(
            ("the coffee", "the timber", "the cement", "the cotton"),
            "The depot in {a} stocks {thing}.",
            "Trucks move the stock of {a} to {b} and that of {b} to {a}.",
            "Which depot stocks {thing} after the last truck?",
            "Trucks haul {thing} from {a} to {b}.",
            "No truck moves {thing} out of {a}.",
        ),
        HolderWords(
            ("the crane", "the forklift", "the tanker", "the conveyor"),
            "The terminal in {a} rents {thing}.",
            "A haulier ships the gear between {a} and {b}, both ways.",
            "Which terminal rents {thing} this week?",
            "The haulier ships {thing} from {a} to {b}.",
            "The haulier ships nothing: {thing} stays in {a}.",
        ),
        HolderWords(
            ("the express line", "the cold line", "the heavy line", "the bulk line"),
            "The hub in {a} dispatches {thing}.",
            "A new timetable reverses the lines of {a} and {b}.",
            "Which hub dispatches {thing} under the last timetable?",
            "The timetable reroutes {thing} from {a} to {b}.",
            "The timetable routes {thing} via {a} as usual.",
        ),
    ),
    "sports": (
        HolderWords(
            ("first place", "second place", "third place", "fourth place"),
            "The {a} sit in {thing}.",
            "A league match has the {a} and the {b} trade places.",
            "Which team sits in {thing} after the season?",
            "The {a} lose {thing} to the {b}.",
            "The {a} defend {thing}.",
        ),
        HolderWords(
            ("the striker", "the goalkeeper", "the winger", "the captain"),
            "The {a} field {thing}.",
            "The {a} and the {b} agree on a player swap.",
            "Which team fields {thing} in the final?",
            "The {a} sell {thing} to the {b}.",
            "The {a} do not part with {thing}.",
        ),
        HolderWords(
            ("the cup", "the shield", "the pennant", "the belt"),
            "The {a} show off {thing}.",
            "The {a} and the {b} play for each other's trophies.",
            "Which team shows off {thing} at the parade?",
            "The {b} win {thing} off the {a}.",
            "The {a} do not play for {thing}.",
        ),
    ),
}
