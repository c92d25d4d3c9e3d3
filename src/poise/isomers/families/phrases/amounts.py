"""Words for the amounts of `state_changes`."""

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


AMOUNTS: dict[str, tuple[AmountWords, ...]] = {
    "mathematics": (
        AmountWords(
            "The variable t equals {n}.",
            "The variable t is increased by {n}.",
            "The variable t is decreased by {n}.",
            "The variable t is multiplied by {n}.",
            "The variable t is divided by {n}.",
            "What value does t have eventually?",
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
            "A ward enters the night with {n} patients.",
            "Admissions bring {n} patients to the ward.",
            "Discharges take {n} patients off the ward.",
            "An epidemic raises the patients to {n} times as many.",
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
            "A venue order reduces the docket to one case in {n}.",
            "How many cases are pending at the close of the session?",
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
            "A van drives off carrying {n} parcels.",
            "At a stop the driver loads {n} parcels.",
            "At a stop the driver unloads {n} parcels.",
            "At a hub the cargo expands to {n} times its size.",
            "At a hub {n} drivers share the cargo evenly.",
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
            "A foul slashes its score {n}-fold.",
            "On how many points does the team finish?",
            "The team is on {sum} points.",
        ),
        AmountWords(
            "A coach sets {n} laps.",
            "The coach tacks on {n} laps.",
            "The coach waives {n} laps.",
            "A lost bet turns the laps into {n}-fold the laps.",
            "Rain slashes the laps {n}-fold.",
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
}
