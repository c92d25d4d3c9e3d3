"""Words for `state_changes`: an amount that changes, and things that are swapped."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AmountWords:
    """An amount that changes.

    Args:
        start: There is `n` at the start.
        add, remove: `n` come or go.
        times: The amount becomes `n` times as large.
        part: Only one of `n` equal parts stays.
        ask: How much there is at the end.
        step: Concludes `sum`.
    """

    start: str
    add: str
    remove: str
    times: str
    part: str
    ask: str
    step: str


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


AMOUNTS: dict[str, tuple[AmountWords, ...]] = {
    "mathematics": (
        AmountWords(
            "The variable t equals {n}.",
            "The variable t is increased by {n}.",
            "The variable t is decreased by {n}.",
            "The variable t is multiplied by {n}.",
            "The variable t is divided by {n}.",
            "What is the final value of t?",
            "Then t = {sum}.",
        ),
        AmountWords(
            "Choose the integer {n}.",
            "Add {n} to the result.",
            "Subtract {n} from the result.",
            "Multiply the result by {n}.",
            "Divide the result by {n}.",
            "Which integer results?",
            "The result is {sum}.",
        ),
        AmountWords(
            "A sequence begins with the term {n}.",
            "The following term is larger by {n}.",
            "The following term is smaller by {n}.",
            "The following term is the product of this term and {n}.",
            "The following term is the quotient of this term and {n}.",
            "What is the last term of the sequence?",
            "The following term is {sum}.",
        ),
    ),
    "medicine": (
        AmountWords(
            "A drip bag contains {n} mL of saline.",
            "A nurse injects {n} mL into the bag.",
            "The patient receives {n} mL from the bag.",
            "A nurse refills the bag to {n} times its content.",
            "A nurse drains the bag to 1/{n} of its content.",
            "How many mL does the bag contain now?",
            "The bag contains {sum} mL.",
        ),
        AmountWords(
            "A patient starts on a daily dose of {n} mg.",
            "The doctor raises the dose by {n} mg.",
            "The doctor lowers the dose by {n} mg.",
            "The doctor raises the dose to {n} times its size.",
            "The doctor cuts the dose to 1/{n} of its size.",
            "How many mg does the patient take in the end?",
            "The dose becomes {sum} mg.",
        ),
        AmountWords(
            "A ward begins the night with {n} patients.",
            "Admissions bring {n} patients to the ward.",
            "Discharges take {n} patients off the ward.",
            "An epidemic makes the patients {n} times as many.",
            "After treatment 1/{n} of the patients remain in bed.",
            "How many patients does the ward care for in the morning?",
            "The ward cares for {sum} patients.",
        ),
    ),
    "law": (
        AmountWords(
            "A judge's docket lists {n} cases.",
            "Plaintiffs file {n} further cases.",
            "The judge dismisses {n} cases.",
            "A consolidation order makes the docket {n} times as long.",
            "A transfer order reduces the docket to one case in {n}.",
            "How many cases are pending at the close of the term?",
            "Now {sum} cases are pending.",
        ),
        AmountWords(
            "The draft contract has {n} clauses.",
            "Counsel inserts {n} clauses.",
            "Opposing counsel strikes {n} clauses.",
            "A rider extends the contract to {n} times its clauses.",
            "A settlement limits the contract to one clause in {n}.",
            "How many clauses does the signed contract have?",
            "The contract then has {sum} clauses.",
        ),
        AmountWords(
            "A defendant faces a sentence of {n} days.",
            "The prosecutor obtains {n} days on top.",
            "An appeal removes {n} days.",
            "A prior conviction makes the sentence {n} times as severe.",
            "A plea bargain commutes the sentence to one day in {n}.",
            "How many days must the defendant serve?",
            "The sentence stands at {sum} days.",
        ),
    ),
    "science": (
        AmountWords(
            "A flask holds {n} mol of gas.",
            "A valve lets {n} mol flow in.",
            "A pump extracts {n} mol.",
            "A reaction yields {n} mol per mol in the flask.",
            "A catalyst fuses every {n} mol into a single one.",
            "How many mol does the flask hold after the experiment?",
            "The flask holds {sum} mol.",
        ),
        AmountWords(
            "A culture numbers {n} cells.",
            "Researchers seed {n} cells.",
            "An antibody kills {n} cells.",
            "Growth multiplies the cells by a factor of {n}.",
            "Radiation spares a fraction of 1 in {n} cells.",
            "How many cells survive in the culture?",
            "The culture numbers {sum} cells.",
        ),
        AmountWords(
            "A thermometer reads {n} kelvin.",
            "A heater warms the sample by {n} kelvin.",
            "A cryostat cools the sample by {n} kelvin.",
            "A laser scales the temperature by a factor of {n}.",
            "An expansion shrinks the temperature by a factor of {n}.",
            "How many kelvin does the thermometer read finally?",
            "The thermometer reads {sum} kelvin.",
        ),
    ),
    "logistics": (
        AmountWords(
            "A warehouse stores {n} pallets.",
            "A truck drops off {n} pallets.",
            "A truck picks up {n} pallets.",
            "Repacking splits each pallet into {n}.",
            "Repacking stacks each {n} pallets onto a single one.",
            "How many pallets does the warehouse end up with?",
            "The warehouse has {sum} pallets.",
        ),
        AmountWords(
            "A van leaves the depot carrying {n} parcels.",
            "At a stop the driver loads {n} parcels.",
            "At a stop the driver unloads {n} parcels.",
            "At a hub the cargo swells {n} times over.",
            "At a hub the driver keeps every {n}th parcel.",
            "How many parcels arrive with the van?",
            "The van carries {sum} parcels.",
        ),
        AmountWords(
            "A freight train pulls {n} wagons.",
            "At a junction {n} wagons are coupled.",
            "At a junction {n} wagons are uncoupled.",
            "A merger stretches the train to {n} times its wagons.",
            "A derailment shortens the train to a wagon in every {n}.",
            "How many wagons roll into the terminal?",
            "The train rolls on with {sum} wagons.",
        ),
    ),
    "sports": (
        AmountWords(
            "A team opens the game with {n} points.",
            "The team scores {n} points.",
            "The referee deducts {n} points.",
            "A bonus round boosts its score {n}-fold.",
            "A foul cuts its score {n}-fold.",
            "On how many points does the team finish?",
            "The team is on {sum} points.",
        ),
        AmountWords(
            "A coach sets {n} laps.",
            "The coach tacks on {n} laps.",
            "The coach waives {n} laps.",
            "A lost bet makes it {n}-fold the laps.",
            "Rain cuts the laps {n}-fold.",
            "How many laps must the athletes run?",
            "The coach wants {sum} laps.",
        ),
        AmountWords(
            "A stadium fills with {n} fans.",
            "At the gate {n} fans stream in.",
            "At the gate {n} fans walk out.",
            "A goal swells the crowd {n}-fold.",
            "A downpour thins the crowd {n}-fold.",
            "How many fans watch the final whistle?",
            "The crowd is {sum} fans.",
        ),
    ),
}  # fmt: skip

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
            ("the scalpel", "the syringe", "the thermometer", "the stethoscope"),
            "Nurse {a} carries {thing}.",
            "Nurses {a} and {b} trade instruments.",
            "Which nurse carries {thing} at the end of the shift?",
            "{a} gives {thing} to {b}.",
            "{a} goes on carrying {thing}.",
        ),
        HolderWords(
            ("the window bed", "the door bed", "the corner bed", "the corridor bed"),
            "Patient {a} lies in {thing}.",
            "The doctor has {a} and {b} change beds.",
            "Which patient lies in {thing} in the evening?",
            "{a} leaves {thing} to {b}.",
            "{a} remains in {thing}.",
        ),
        HolderWords(
            ("the eye clinic", "the heart clinic", "the skin clinic", "the lung clinic"),
            "Doctor {a} is on call for {thing}.",
            "Doctors {a} and {b} swap their rotas.",
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
            ("the laser", "the prism lens", "the magnet", "the mirror"),
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
            "Trucks bring the stock of {a} to {b} and that of {b} to {a}.",
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
            "The haulier ships nothing: {thing} sits in {a}.",
        ),
        HolderWords(
            ("the express line", "the cold line", "the night line", "the bulk line"),
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
            "A league match makes the {a} and the {b} switch places.",
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
            "The {a} hold on to {thing}.",
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
