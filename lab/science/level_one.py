"""Level 1 of all four domains: questions that one look answers.

Drawn numbers start with different digits, so that a model of 135M parameters can learn to tell
them apart; options are equally long, so that their length tells nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from .drafts import choice
from .facts import ATOMIC_NUMBERS, BOILING_POINTS, IONS, METALS
from .registry import Draft, template

# Plural nouns with their units.
QUANTITIES = {
    "chemistry": (("amounts", "mol"), ("masses", "g"), ("volumes", "mL")),
    "physics": (
        ("masses", "kg"), ("lengths", "m"), ("speeds", "m/s"), ("forces", "N"), ("energies", "J"),
        ("powers", "W"), ("times", "s"), ("currents", "A"), ("voltages", "V"),
    ),
    "biology": (
        ("cell lengths", "µm"), ("leaf areas", "cm²"), ("genomes", "Mb"), ("wing spans", "cm"),
        ("proteins", "kDa"),
    ),
    "materials": (
        ("strengths", "MPa"), ("elastic moduli", "GPa"), ("thicknesses", "mm"),
        ("grain sizes", "µm"), ("strains", "%"),
    ),
}  # fmt: skip
COLOURS = ("red", "blue", "green", "black", "white", "grey", "brown", "pink")
DOGS = ("Rex", "Max", "Bella", "Luna", "Charlie", "Daisy", "Rocky", "Molly")


def spread(rng: Random) -> list[int]:
    """Draw four two-digit numbers whose first digits all differ."""
    return [10 * tens + rng.randrange(10) for tens in rng.sample(range(1, 10), 4)]


def extreme(rng: Random, domain: str) -> Draft:
    """Which of four quantities is the largest or the smallest?"""
    noun, unit = rng.choice(QUANTITIES[domain])
    numbers = spread(rng)
    largest = rng.random() < 0.5
    word = "largest" if largest else "smallest"
    right = (max if largest else min)(numbers)
    texts = {n: f"{n}{'' if unit == '%' else ' '}{unit}" for n in numbers}
    others = [texts[n] for n in numbers if n != right]
    stem = f"Which of these {noun} is the {word}?"
    given = (noun, word, *sorted(numbers))
    return choice(stem, given, texts[right], others, [f"{texts[right]} is the {word}."])


def named_extreme(
    rng: Random,
    items: Sequence[str] | Mapping[str, int],
    intro: str,
    unit: str,
    asks: tuple[str, str],
) -> Draft:
    """The values of four named things are given; which thing has the extreme one?

    Args:
        items: Names (values are drawn), or names with their real values.
        intro: What the values are, e.g. ``"Boiling points"``.
        asks: The questions for the largest and for the smallest.
    """
    names = rng.sample(sorted(items), 4)
    real = items if isinstance(items, Mapping) else dict(zip(names, spread(rng), strict=True))
    values = {name: f"{real[name]} {unit}".rstrip() for name in names}
    largest = rng.random() < 0.5
    right = (max if largest else min)(names, key=real.__getitem__)
    listed = ", ".join(f"{name} {value}" for name, value in values.items())
    stem = f"{intro}: {listed}. {asks[0] if largest else asks[1]}"
    given = (intro, largest, *sorted(f"{name}={value}" for name, value in values.items()))
    step = f"The {'largest' if largest else 'smallest'} value is {values[right]}: {right}."
    return choice(stem, given, right, [name for name in names if name != right], [step])


@template("chemistry", "largest_amount", 1)
def largest_amount(rng: Random) -> Draft:
    return extreme(rng, "chemistry")


@template("physics", "largest_quantity", 1)
def largest_quantity(rng: Random) -> Draft:
    return extreme(rng, "physics")


@template("biology", "largest_measure", 1)
def largest_measure(rng: Random) -> Draft:
    return extreme(rng, "biology")


@template("materials", "largest_property", 1)
def largest_property(rng: Random) -> Draft:
    return extreme(rng, "materials")


@template("chemistry", "most_acidic", 1)
def most_acidic(rng: Random) -> Draft:
    tenths = spread(rng)
    acidic = rng.random() < 0.5
    word, why = ("acidic", "lowest") if acidic else ("basic", "highest")
    right = (min if acidic else max)(tenths)
    texts = {t: f"pH {t // 10}.{t % 10}" for t in tenths}
    others = [texts[t] for t in tenths if t != right]
    stem = f"Which of these solutions is the most {word}?"
    steps = [f"The {why} pH is the most {word}: {texts[right]}."]
    return choice(stem, (word, *sorted(tenths)), texts[right], others, steps)


@template("chemistry", "sign_of_ion", 1)
def sign_of_ion(rng: Random) -> Draft:
    sign, other, word = rng.choice([("-", "+", "negative"), ("+", "-", "positive")])
    right = rng.choice(IONS[sign])
    others = rng.sample([ion for ion in IONS[other] if len(ion) == len(right)], 3)
    stem = f"Which of these ions has a {word} charge?"
    steps = [f"{right} has a {word} charge."]
    return choice(stem, (right, *sorted(others)), right, others, steps)


@template("chemistry", "atomic_number", 1)
def atomic_number(rng: Random) -> Draft:
    asks = ("Which has the most protons?", "Which has the fewest protons?")
    return named_extreme(rng, ATOMIC_NUMBERS, "Atomic numbers", "", asks)


@template("chemistry", "boiling_point", 1)
def boiling_point(rng: Random) -> Draft:
    asks = ("Which boils at the highest temperature?", "Which boils at the lowest temperature?")
    return named_extreme(rng, BOILING_POINTS, "Boiling points", "°C", asks)


@template("physics", "fastest_car", 1)
def fastest_car(rng: Random) -> Draft:
    asks = ("Which car is the fastest?", "Which car is the slowest?")
    return named_extreme(rng, COLOURS, "Speeds of four cars", "km/h", asks)


@template("physics", "heaviest_box", 1)
def heaviest_box(rng: Random) -> Draft:
    asks = ("Which box is the heaviest?", "Which box is the lightest?")
    return named_extreme(rng, COLOURS, "Masses of four boxes", "kg", asks)


@template("physics", "sign_of_charge", 1)
def sign_of_charge(rng: Random) -> Draft:
    sign, other, word = rng.choice([("-", "+", "negative"), ("+", "-", "positive")])
    first, *more = spread(rng)
    right, others = f"{sign}{first} nC", [f"{other}{size} nC" for size in more]
    stem = f"Which of these charges is {word}?"
    steps = [f"{right} is {word}."]
    return choice(stem, (right, *sorted(others)), right, others, steps)


@template("biology", "heaviest_dog", 1)
def heaviest_dog(rng: Random) -> Draft:
    asks = ("Which dog is the heaviest?", "Which dog is the lightest?")
    return named_extreme(rng, DOGS, "Body masses of four dogs", "kg", asks)


@template("biology", "most_colonies", 1)
def most_colonies(rng: Random) -> Draft:
    dishes = [f"dish {letter}" for letter in "PQRSTUVW"]
    asks = ("Which dish has the most colonies?", "Which dish has the fewest colonies?")
    return named_extreme(rng, dishes, "Colonies", "", asks)


@template("biology", "rna_or_dna", 1)
def rna_or_dna(rng: Random) -> Draft:
    odd, common, word = rng.choice([("U", "T", "RNA"), ("T", "U", "DNA")])
    strands: set[str] = set()
    while len(strands) < 4:
        strands.add(_strand(rng, common if strands else odd))
    right = next(strand for strand in strands if odd in strand)
    others = sorted(strands - {right})
    stem = f"Which of these strands is {word}?"
    steps = [f"{word} has {odd} in place of {common}: {right}."]
    return choice(stem, (right, *others), right, others, steps)


def _strand(rng: Random, base: str) -> str:
    bases = [rng.choice("ACG" + base) for _ in range(5)]
    bases[rng.randrange(5)] = base
    return "".join(bases)


@template("materials", "hardest_sample", 1)
def hardest_sample(rng: Random) -> Draft:
    samples = [f"sample {letter}" for letter in "PQRSTUVW"]
    asks = ("Which sample is the hardest?", "Which sample is the softest?")
    return named_extreme(rng, samples, "Vickers hardness", "HV", asks)


@template("materials", "melting_point", 1)
def melting_point(rng: Random) -> Draft:
    asks = ("Which melts at the highest temperature?", "Which melts at the lowest temperature?")
    points = {metal: melting for metal, (melting, _) in METALS.items()}
    return named_extreme(rng, points, "Melting points", "°C", asks)


@template("materials", "densest_metal", 1)
def densest_metal(rng: Random) -> Draft:
    asks = ("Which metal is the densest?", "Which metal is the least dense?")
    densities = {metal: density for metal, (_, density) in METALS.items()}
    return named_extreme(rng, densities, "Densities", "kg/m³", asks)
