"""Chemistry: amounts, solutions, gases, acids and reactions."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

from .drafts import mistakes, numeric
from .facts import MOLAR_MASSES, REACTIONS, SOLUBLE, salt
from .numbers import article, scientific, show, significant
from .registry import Draft, template

R = Fraction(8314, 1000)  # kPa·L/(mol·K)
KELVIN = Fraction(27315, 100)


@template("chemistry", "moles_from_mass", 2)
def moles_from_mass(rng: Random) -> Draft:
    name, molar = rng.choice(sorted(MOLAR_MASSES.items()))
    mass = rng.randrange(5, 400)
    stem = f"How many moles is {mass} g of {name}? Its molar mass is {show(molar)} g/mol."
    wrong = mistakes(mass * molar, molar / mass, Fraction(mass) / 10, mass / molar * 1000)
    steps = [f"n = m / M = {mass} g / {show(molar)} g/mol"]
    return numeric(stem, (name, mass), mass / molar, "mol", wrong, steps)


@template("chemistry", "mass_from_moles", 2)
def mass_from_moles(rng: Random) -> Draft:
    name, molar = rng.choice(sorted(MOLAR_MASSES.items()))
    amount = Fraction(rng.randrange(12, 900), 100)
    stem = (
        f"What is the mass of {show(amount)} mol of {name}? Its molar mass is {show(molar)} g/mol."
    )
    wrong = mistakes(molar / amount, amount / molar, molar + amount, amount * molar * 2)
    steps = [f"m = n M = {show(amount)} mol × {show(molar)} g/mol"]
    return numeric(stem, (name, amount), amount * molar, "g", wrong, steps)


@template("chemistry", "dilution", 2)
def dilution(rng: Random) -> Draft:
    strong = Fraction(rng.randrange(5, 120), 10)
    small = rng.randrange(5, 100, 5)
    large = small + rng.randrange(20, 500, 5)
    stem = (
        f"Water is added to {small} mL of {article(show(strong))} mol/L solution until the volume "
        f"is {large} mL. What is the new concentration?"
    )
    value = strong * small / large
    wrong = mistakes(
        strong * large / small,
        strong * small / (small + large),
        strong * small / 100,
        strong * (large - small) / large,
    )
    steps = [f"c₂ = c₁ V₁ / V₂ = {show(strong)} mol/L × {small} mL / {large} mL"]
    return numeric(stem, (strong, small, large), value, "mol/L", wrong, steps)


@template("chemistry", "percent_yield", 2)
def percent_yield(rng: Random) -> Draft:
    most = rng.randrange(20, 400)
    got = rng.randrange(most // 5, most * 9 // 10)
    stem = f"A reaction can give at most {most} g of product. It gives {got} g. What is the yield?"
    value = Fraction(100 * got, most)
    wrong = mistakes(100 - value, value / 10, Fraction(100 * got, most + got), value / 2)
    steps = [f"Yield = {got} g / {most} g × 100%"]
    return numeric(stem, (most, got), value, "%", wrong, steps, below=100)


@template("chemistry", "ph_of_acid", 2)
def ph_of_acid(rng: Random) -> Draft:
    lead, power = Fraction(rng.randrange(100, 1000), 100), rng.randrange(3, 10)
    stem = f"What is the pH at a hydrogen ion concentration of {show(lead)} × 10^-{power} mol/L?"
    value = -math.log10(lead / 10**power)
    wrong = mistakes(power, power + math.log10(lead), 14 - value, power - 1, value * math.log(10))
    steps = [f"pH = -log₁₀({show(lead)} × 10^-{power})"]
    return numeric(stem, (lead, power), value, "", wrong, steps, places=2, step=1 / 3, below=14)


@template("chemistry", "percent_by_mass", 3)
def percent_by_mass(rng: Random) -> Draft:
    solute, water = rng.randrange(3, 120), rng.randrange(60, 600)
    stem = (
        f"{solute} g of salt is dissolved in {water} g of water. "
        "What is the mass fraction of salt in the solution?"
    )
    value = Fraction(100 * solute, solute + water)
    wrong = mistakes(Fraction(100 * solute, water), 100 - value, value / 10, value / 100)
    steps = [
        f"The solution has a mass of {solute} g + {water} g = {solute + water} g.",
        f"w = {solute} g / {solute + water} g × 100%",
    ]
    return numeric(stem, (solute, water), value, "%", wrong, steps, below=100)


@template("chemistry", "molarity", 3)
def molarity(rng: Random) -> Draft:
    name = rng.choice(SOLUBLE)
    molar, mass = MOLAR_MASSES[name], rng.randrange(3, 100)
    volume, amount = rng.randrange(200, 1000, 10), mass / molar
    stem = (
        f"{mass} g of {name} (molar mass {show(molar)} g/mol) is dissolved to make {volume} mL "
        "of solution. What is its concentration?"
    )
    value = amount * 1000 / volume
    wrong = mistakes(amount * volume / 1000, amount / volume, Fraction(mass * 1000, volume), amount)
    steps = [
        f"n = m / M = {mass} g / {show(molar)} g/mol = {significant(amount)} mol.",
        f"c = n / V = {significant(amount)} mol / {show(Fraction(volume, 1000))} L",
    ]
    return numeric(stem, (name, mass, volume), value, "mol/L", wrong, steps)


@template("chemistry", "mass_of_salt", 3)
def mass_of_salt(rng: Random) -> Draft:
    formula, atoms = salt(rng)
    amount = Fraction(rng.randrange(11, 99), 10)
    masses = ", ".join(f"{symbol} {show(mass)}" for symbol, (_, mass) in atoms.items())
    stem = f"What is the mass of {show(amount)} mol of {formula}? Atomic masses in g/mol: {masses}."
    molar = sum(n * mass for n, mass in atoms.values())
    once = sum(mass for _, mass in atoms.values())
    wrong = mistakes(amount * once, molar / amount, molar + amount, Fraction(molar))
    working = " + ".join(f"{n} × {show(mass)}" for n, mass in atoms.values())
    steps = [
        f"M = {working} = {show(molar)} g/mol.",
        f"m = n M = {show(amount)} mol × {show(molar)} g/mol",
    ]
    return numeric(stem, (formula, amount), amount * molar, "g", wrong, steps)


@template("chemistry", "radioactive_decay", 3)
def radioactive_decay(rng: Random) -> Draft:
    start, half, times = rng.randrange(20, 900, 4), rng.randrange(2, 40), rng.randrange(2, 7)
    unit = rng.choice(["days", "hours", "years", "minutes"])
    stem = (
        f"An isotope has a half-life of {half} {unit}. How much of {start} mg is left after "
        f"{half * times} {unit}?"
    )
    value = Fraction(start, 2**times)
    wrong = mistakes(start - value, Fraction(start, 2 * times), Fraction(start, times), value * 2)
    steps = [f"{half * times} {unit} are {times} half-lives.", f"m = {start} mg / 2^{times}"]
    return numeric(stem, (start, half, times, unit), value, "mg", wrong, steps)


@template("chemistry", "ideal_gas", 3)
def ideal_gas(rng: Random) -> Draft:
    amount = Fraction(rng.randrange(5, 80), 10)
    celsius, volume = rng.randrange(5, 200), rng.randrange(5, 120)
    stem = (
        f"{show(amount)} mol of an ideal gas fills {volume} L at {celsius} °C. "
        "What is its pressure? (R = 8.314 kPa·L/(mol·K))"
    )
    kelvin = celsius + KELVIN
    value = amount * R * kelvin / volume
    wrong = mistakes(
        amount * R * celsius / volume,
        amount * R * kelvin * volume / 1000,
        value / amount,
        R * kelvin / (amount * volume),
    )
    steps = [
        f"T = {celsius} + 273.15 = {show(kelvin)} K.",
        f"p = n R T / V = {show(amount)} mol × 8.314 kPa·L/(mol·K) × {show(kelvin)} K / {volume} L",
    ]
    return numeric(stem, (amount, volume, celsius), value, "kPa", wrong, steps)


@template("chemistry", "limiting_reagent", 4)
def limiting_reagent(rng: Random) -> Draft:
    equation, (a, first, mass_a), (b, second, mass_b), (c, product, mass_c) = rng.choice(REACTIONS)
    m_a, m_b = rng.randrange(5, 150), rng.randrange(5, 150)
    runs_a, runs_b = m_a / (a * mass_a), m_b / (b * mass_b)
    runs = min(runs_a, runs_b)
    limiting = first if runs_a <= runs_b else second
    stem = (
        f"{equation}. What mass of {product} can form from {m_a} g of {first} and {m_b} g of "
        f"{second}? Molar masses in g/mol: {first} {show(mass_a)}, {second} {show(mass_b)}, "
        f"{product} {show(mass_c)}."
    )
    value = runs * c * mass_c
    wrong = mistakes(
        max(runs_a, runs_b) * c * mass_c,
        runs * mass_c,
        Fraction(m_a + m_b),
        min(m_a / mass_a, m_b / mass_b) * mass_c,
    )
    steps = [
        f"{first}: {m_a} g / {show(mass_a)} g/mol = {significant(m_a / mass_a)} mol.",
        f"{second}: {m_b} g / {show(mass_b)} g/mol = {significant(m_b / mass_b)} mol.",
        f"{limiting} runs out first and gives {significant(runs * c)} mol of {product}.",
        f"m = {significant(runs * c)} mol × {show(mass_c)} g/mol",
    ]
    return numeric(stem, (product, m_a, m_b), value, "g", wrong, steps)


@template("chemistry", "titration", 4)
def titration(rng: Random) -> Draft:
    acid, protons = rng.choice([("HCl", 1), ("HNO3", 1), ("H2SO4", 2), ("H3PO4", 3)])
    taken, used = rng.randrange(10, 60), rng.randrange(8, 70)
    base = Fraction(rng.randrange(5, 60), 100)
    stem = (
        f"{taken} mL of {acid} is neutralised completely by {used} mL of {show(base)} mol/L NaOH. "
        f"What is the concentration of the {acid}?"
    )
    value = base * used / (taken * protons)
    wrong = mistakes(
        base * used * protons / taken,
        base * taken / used,
        base * used / (taken + used),
        base * used / taken,
        base * taken / (used * protons),
    )
    steps = [
        f"n(NaOH) = {used} mL × {show(base)} mol/L = {show(used * base)} mmol.",
        f"n({acid}) = {show(used * base)} mmol / {protons} = "
        f"{significant(used * base / protons)} mmol.",
        f"c = {significant(used * base / protons)} mmol / {taken} mL",
    ]
    return numeric(stem, (acid, taken, used, base), value, "mol/L", wrong, steps)


@template("chemistry", "ph_after_mixing", 4)
def ph_after_mixing(rng: Random) -> Draft:
    acid, base = Fraction(rng.randrange(4, 30), 100), Fraction(rng.randrange(2, 10), 100)
    v_acid, v_base = rng.randrange(20, 100), rng.randrange(10, 100)
    left, volume = acid * v_acid - base * v_base, v_acid + v_base
    if not Fraction(1, 100) < left / volume < Fraction(15, 100):  # clearly, not wildly, acidic
        return ph_after_mixing(rng)
    stem = (
        f"{v_acid} mL of {show(acid)} mol/L HCl is mixed with {v_base} mL of {show(base)} mol/L "
        "NaOH. What is the pH of the mixture?"
    )
    value = -math.log10(left / volume)
    sum_instead = (acid * v_acid + base * v_base) / volume
    wrong = mistakes(*(-math.log10(c) for c in (left / v_acid, acid, sum_instead)))
    steps = [
        f"n(H+) = {v_acid} × {show(acid)} - {v_base} × {show(base)} = {show(left)} mmol.",
        f"[H+] = {show(left)} mmol / {volume} mL = {scientific(left / volume)} mol/L.",
        f"pH = -log₁₀({scientific(left / volume)})",
    ]
    given = (acid, v_acid, base, v_base)
    return numeric(stem, given, value, "", wrong, steps, places=2, step=1 / 7, below=14)
