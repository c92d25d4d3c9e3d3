"""Biology: genetics, populations, cells and physiology."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from random import Random

from .drafts import choice, count, mistakes, numeric
from .facts import CODONS
from .numbers import article, scientific, show, significant
from .registry import Draft, template

# Offspring, dominant trait, recessive trait.
TRAITS = (
    ("pea plants", "tall", "short"),
    ("pea plants", "purple", "white"),
    ("mice", "black", "brown"),
    ("flies", "red-eyed", "white-eyed"),
    ("rabbits", "grey", "white"),
)
PAIR = {"A": "T", "T": "A", "G": "C", "C": "G"}


@template("biology", "amino_acids", 2)
def amino_acids(rng: Random) -> Draft:
    acids = rng.randrange(20, 4000)
    stem = (
        f"A coding sequence of {3 * acids + 3} bases includes the stop codon. "
        "How many amino acids does its protein have?"
    )
    wrong = mistakes(acids + 1, 3 * acids + 3, 3 * acids, Fraction(3 * acids + 3, 2), acids - 1)
    steps = [
        f"{3 * acids + 3} / 3 = {acids + 1} codons.",
        f"Without the stop codon: {acids + 1} - 1",
    ]
    return count(stem, (acids,), acids, "", wrong, steps)


@template("biology", "base_pairing", 2)
def base_pairing(rng: Random) -> Draft:
    guanine = Fraction(rng.randrange(1000, 4000), 100)
    known, asked = rng.choice([("G", "A"), ("C", "T"), ("A", "C"), ("T", "G")])
    stem = (
        f"In a double-stranded DNA, {show(guanine)}% of the bases are {known}. "
        f"What percentage are {asked}?"
    )
    value = 50 - guanine
    wrong = mistakes(guanine, 100 - guanine, 100 - 2 * guanine, guanine / 2)
    steps = [
        f"{known} and its partner make up 2 × {show(guanine)}%; {asked} is half of the rest.",
        f"{asked} = (100% - 2 × {show(guanine)}%) / 2",
    ]
    return numeric(stem, (known, asked, guanine), value, "%", wrong, steps, below=100)


@template("biology", "monohybrid_cross", 2)
def monohybrid_cross(rng: Random) -> Draft:
    kind, dominant, recessive = rng.choice(TRAITS)
    quarter, backcross = rng.randrange(10, 250), rng.random() < 0.5
    total = 4 * quarter
    shown = rng.choice([dominant, recessive])
    cross = "Aa × aa" if backcross else "Aa × Aa"
    share = Fraction(1, 2) if backcross else Fraction(3 if shown == dominant else 1, 4)
    stem = (
        f"{dominant.capitalize()} (A) is dominant over {recessive} (a). A cross {cross} gives "
        f"{total} {kind}. How many are expected to be {shown}?"
    )
    wrong = mistakes(quarter, 2 * quarter, 3 * quarter, total, Fraction(total, 3))
    steps = [f"The expected share is {share}.", f"{share} × {total}"]
    given = (kind, shown, cross, total)
    return count(stem, given, share * total, kind, wrong, steps)


@template("biology", "mark_and_recapture", 2)
def mark_and_recapture(rng: Random) -> Draft:
    again = rng.randrange(4, 20)
    marked, caught = again * rng.randrange(3, 12), rng.randrange(2 * again, 200)
    animal = rng.choice(["beetles", "fish", "snails", "mice", "frogs"])
    stem = (
        f"{marked} {animal} are marked and released. Later {caught} are caught, and {again} of "
        "them are marked. What is the estimated population?"
    )
    value = marked * caught // again
    wrong = mistakes(marked + caught - again, marked + caught, marked * again, value - marked)
    steps = [f"N = {marked} × {caught} / {again}"]
    given = (animal, marked, caught, again)
    return count(stem, given, value, animal, wrong, steps)


@template("biology", "cardiac_output", 2)
def cardiac_output(rng: Random) -> Draft:
    rate, stroke = rng.randrange(45, 190), rng.randrange(40, 130)
    stem = (
        f"A heart beats {rate} times per minute and pumps {stroke} mL with each beat. "
        "What is the cardiac output?"
    )
    value = Fraction(rate * stroke, 1000)
    wrong = mistakes(Fraction(stroke, rate), Fraction(rate, stroke), value * 10, value / 60)
    steps = [f"Q = {rate} per min × {show(Fraction(stroke, 1000))} L"]
    return numeric(stem, (rate, stroke), value, "L/min", wrong, steps)


@template("biology", "magnification", 3)
def magnification(rng: Random) -> Draft:
    image, actual = rng.randrange(8, 150), rng.randrange(2, 180)
    thing = rng.choice(["cell", "spore", "pollen grain", "alga"])
    stem = (
        f"In a drawing, {article(thing)} is {image} mm long. Its real length is {actual} µm. "
        "What is the magnification?"
    )
    value = Fraction(image * 1000, actual)
    inverse = Fraction(actual * 1000, image)
    wrong = mistakes(value / 1000, inverse, value / 10, value * 10)
    steps = [f"{image} mm = {image * 1000} µm.", f"M = {image * 1000} µm / {actual} µm"]
    return numeric(stem, (thing, image, actual), value, "times", wrong, steps)


@template("biology", "hardy_weinberg", 3)
def hardy_weinberg(rng: Random) -> Draft:
    q = Fraction(rng.randrange(5, 60), 100)
    size = rng.randrange(100, 5000, 50)
    stem = (
        f"In a population of {size} in Hardy-Weinberg equilibrium, the recessive phenotype has a "
        f"frequency of {show(q * q)}. How many heterozygotes are expected?"
    )
    p = 1 - q
    value = 2 * p * q * size
    wrong = mistakes(p * q * size, p * p * size, (1 - q * q) * size, q * size)
    steps = [
        f"q = √{show(q * q)} = {show(q)} and p = 1 - {show(q)} = {show(p)}.",
        f"2 p q N = 2 × {show(p)} × {show(q)} × {size}",
    ]
    return numeric(stem, (q, size), value, "", wrong, steps)


@template("biology", "bacterial_growth", 3)
def bacterial_growth(rng: Random) -> Draft:
    start, doubling = rng.randrange(50, 1000, 10), rng.choice([10, 15, 20, 30, 40, 60])
    times = rng.randrange(3, 9)
    stem = (
        f"A culture of {start} bacteria doubles every {doubling} minutes. "
        f"How many are there after {doubling * times} minutes?"
    )
    value = start * 2**times
    wrong = mistakes(value // 2, 2 * value, start * 2 * times, start * times**2, start * times)
    steps = [f"{doubling * times} / {doubling} = {times} doublings.", f"{start} × 2^{times}"]
    given = (start, doubling, times)
    return count(stem, given, value, "", wrong, steps)


@template("biology", "translation", 3)
def translation(rng: Random) -> Draft:
    codons = rng.sample(sorted(CODONS), 3)
    mrna = "".join(codons)
    strand = "".join(PAIR[base] for base in mrna.replace("U", "T"))
    acids = [CODONS[codon] for codon in codons]
    table = ", ".join(f"{codon} {CODONS[codon]}" for codon in sorted(codons))
    right, *orders = ["-".join(order) for order in permutations(acids)]
    stem = (
        f"A DNA template strand reads 3'-{strand}-5'. Which peptide does it code for? "
        f"Codons: {table}."
    )
    steps = [f"The mRNA is 5'-{mrna}-3', read as {' '.join(codons)}.", f"{right}."]
    return choice(stem, codons, right, rng.sample(orders, 3), steps)


@template("biology", "recombination", 3)
def recombination(rng: Random) -> Draft:
    old = sorted(rng.randrange(120, 600) for _ in range(2))
    new = sorted(rng.randrange(10, 110) for _ in range(2))
    crossed, total = sum(new), sum(new) + sum(old)
    stem = (
        f"A test cross gives {old[0]} and {old[1]} offspring of the two parental types and "
        f"{new[0]} and {new[1]} of the two recombinant types. How far apart are the genes?"
    )
    value = Fraction(100 * crossed, total)
    wrong = mistakes(
        Fraction(100 * crossed, sum(old)), 100 - value, value / 2, Fraction(100 * new[1], total)
    )
    steps = [
        f"{crossed} of {total} offspring are recombinant.",
        f"{crossed} / {total} × 100 cM",
    ]
    return numeric(stem, (*old, *new), value, "cM", wrong, steps, below=100)


@template("biology", "plate_count", 4)
def plate_count(rng: Random) -> Draft:
    colonies, tubes = rng.randrange(30, 300), rng.randrange(2, 6)
    plated, volume = rng.choice([50, 100, 200, 250, 500]), rng.randrange(5, 60)
    stem = (
        f"A culture is diluted tenfold {tubes} times in a row. {plated} µL of the last dilution "
        f"grows into {colonies} colonies. How many bacteria are in {volume} mL of the culture?"
    )
    last = Fraction(colonies * 1000, plated)
    density = last * 10**tubes
    value = density * volume
    wrong = mistakes(density, value / 10, value * 10, value * plated / 1000, last * volume)
    steps = [
        f"The last dilution has {colonies} / {show(Fraction(plated, 1000))} mL "
        f"= {show(last)} bacteria per mL.",
        f"The culture has {show(last)} × 10^{tubes} = {scientific(density)} per mL.",
        f"N = {scientific(density)} × {volume}",
    ]
    return numeric(stem, (colonies, tubes, plated, volume), value, "", wrong, steps)


@template("biology", "carriers", 4)
def carriers(rng: Random) -> Draft:
    root, people = rng.randrange(4, 61), rng.randrange(100, 1000, 10) * 1000
    stem = (
        f"A recessive disease affects 1 in {root**2} people of a population in Hardy-Weinberg "
        f"equilibrium. How many of {people} people carry the allele without being ill?"
    )
    share = Fraction(2 * (root - 1), root**2)
    value = share * people
    wrong = mistakes(
        value / 2, Fraction(people, root), Fraction(people, root**2), (1 - share) * people
    )
    steps = [
        f"q² = 1/{root**2}, so q = 1/{root}.",
        f"p = 1 - 1/{root} = {root - 1}/{root}.",
        f"2 p q = 2 × {root - 1}/{root} × 1/{root} = {significant(share)}.",
        f"N = {significant(share)} × {people}",
    ]
    return numeric(stem, (root, people), value, "", wrong, steps)


@template("biology", "food_chain", 4)
def food_chain(rng: Random) -> Draft:
    energy, percent = rng.randrange(2000, 25000, 100), rng.randrange(5, 21)
    area, years = rng.randrange(2, 40), rng.randrange(2, 13)
    stem = (
        f"Plants store {energy} kJ per m² per year, and {percent}% of the energy passes on at each "
        f"step of the food chain. How much do the secondary consumers get from {area} m² in "
        f"{years} years?"
    )
    first = Fraction(energy * percent, 100)
    second = first * percent / 100
    value = second * area * years
    wrong = mistakes(value * percent / 100, first * area * years, value / years, value / area)
    steps = [
        f"Primary consumers get {percent}% of {energy} kJ = {show(first)} kJ per m² per year.",
        f"Secondary consumers get {percent}% of {show(first)} kJ = {significant(second)} kJ.",
        f"E = {significant(second)} kJ × {area} × {years}",
    ]
    return numeric(stem, (energy, percent, area, years), value, "kJ", wrong, steps)
