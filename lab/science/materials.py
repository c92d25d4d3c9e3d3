"""Materials: mechanics, density, heat, electricity, crystals and diffusion."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

from .drafts import mistakes, numeric
from .facts import EXPANSION, RESISTIVITY, YOUNG
from .numbers import article, scientific, show, significant
from .registry import Draft, template

CELLS = {"simple cubic": 1, "body-centred cubic": 2, "face-centred cubic": 4}  # atoms in each
AVOGADRO = 6.022e23


@template("materials", "density", 2)
def density(rng: Random) -> Draft:
    mass, volume = rng.randrange(20, 900), rng.randrange(5, 150)
    stem = f"A sample has a mass of {mass} g and a volume of {volume} cm³. What is its density?"
    wrong = mistakes(Fraction(volume, mass), Fraction(mass * volume), Fraction(mass * 10, volume))
    steps = [f"ρ = m / V = {mass} g / {volume} cm³"]
    return numeric(stem, (mass, volume), Fraction(mass, volume), "g/cm³", wrong, steps)


@template("materials", "stress", 2)
def stress(rng: Random) -> Draft:
    force, area = rng.randrange(100, 20000, 10), rng.randrange(5, 200)
    stem = (
        f"A force of {force} N pulls on a bar with a cross-section of {area} mm². "
        "What is the tensile stress?"
    )
    wrong = mistakes(Fraction(area, force), Fraction(force * area), Fraction(force, 2 * area))
    steps = [f"σ = F / A = {force} N / {area} mm²"]
    return numeric(stem, (force, area), Fraction(force, area), "MPa", wrong, steps)


@template("materials", "strain", 2)
def strain(rng: Random) -> Draft:
    length, longer = rng.randrange(50, 2000, 5), Fraction(rng.randrange(5, 200), 10)
    stem = (
        f"A rod of {length} mm is stretched by {show(longer)} mm. What is its strain in per cent?"
    )
    value = 100 * longer / length
    wrong = mistakes(longer / length, length / longer, value * 10)
    steps = [f"ε = ΔL / L × 100% = {show(longer)} mm / {length} mm × 100%"]
    return numeric(stem, (length, longer), value, "%", wrong, steps)


@template("materials", "youngs_modulus", 2)
def youngs_modulus(rng: Random) -> Draft:
    load, percent = rng.randrange(20, 600), Fraction(rng.randrange(5, 200), 100)
    stem = (
        f"An elastic material strains by {show(percent)}% under a stress of {load} MPa. "
        "What is its Young's modulus?"
    )
    value = load / (percent / 100) / 1000
    wrong = mistakes(
        load / percent, load * percent / 100, value / 10, percent / load * 1000, value * 10
    )
    steps = [f"E = σ / ε = {show(Fraction(load, 1000))} GPa / {show(percent / 100)}"]
    return numeric(stem, (load, percent), value, "GPa", wrong, steps)


@template("materials", "safety_factor", 2)
def safety_factor(rng: Random) -> Draft:
    strength, working = rng.randrange(200, 1500, 5), rng.randrange(20, 180)
    stem = (
        f"A part with a yield strength of {strength} MPa works at a stress of {working} MPa. "
        "What is its safety factor?"
    )
    value = Fraction(strength, working)
    wrong = mistakes(1 / value, value - 1, value + 1, value / 2)
    steps = [f"S = {strength} MPa / {working} MPa"]
    return numeric(stem, (strength, working), value, "", wrong, steps)


@template("materials", "rule_of_mixtures", 2)
def rule_of_mixtures(rng: Random) -> Draft:
    fibre, matrix = rng.randrange(70, 420), rng.randrange(2, 12)
    percent = rng.randrange(10, 75)
    stem = (
        f"A composite has {percent}% by volume of aligned fibres (E = {fibre} GPa) in a matrix "
        f"(E = {matrix} GPa). What is its modulus along the fibres?"
    )
    share = Fraction(percent, 100)
    value = share * fibre + (1 - share) * matrix
    wrong = mistakes(
        (1 - share) * fibre + share * matrix,
        1 / (share / fibre + (1 - share) / matrix),
        Fraction(fibre + matrix, 2),
        share * fibre,
    )
    steps = [f"E = {show(share)} × {fibre} GPa + {show(1 - share)} × {matrix} GPa"]
    return numeric(stem, (fibre, matrix, percent), value, "GPa", wrong, steps)


@template("materials", "thermal_expansion", 3)
def thermal_expansion(rng: Random) -> Draft:
    name, alpha = rng.choice(sorted(EXPANSION.items()))
    length, cold = rng.randrange(2, 100), rng.randrange(2, 25)
    hot = cold + rng.randrange(10, 150)
    stem = (
        f"{article(name).capitalize()} rail {length} m long warms from {cold} °C to {hot} °C. "
        f"How much longer does it get? (α = {alpha} × 10^-6 per K)"
    )
    value = Fraction(alpha * length * (hot - cold), 1000)
    wrong = mistakes(
        value / 10,
        value * 10,
        Fraction(alpha * length * hot, 1000),
        3 * value,
        Fraction(alpha * length * (hot + cold), 1000),
    )
    steps = [
        f"ΔT = {hot} °C - {cold} °C = {hot - cold} K.",
        f"ΔL = α L ΔT = {alpha} × 10^-6 per K × {length * 1000} mm × {hot - cold} K",
    ]
    return numeric(stem, (name, length, cold, hot), value, "mm", wrong, steps)


@template("materials", "wire_resistance", 3)
def wire_resistance(rng: Random) -> Draft:
    name, rho = rng.choice(sorted(RESISTIVITY.items()))
    length, area = rng.randrange(5, 500), Fraction(rng.randrange(2, 60), 10)
    stem = (
        f"What is the resistance of {length} m of {name} wire with a cross-section of "
        f"{show(area)} mm²? (ρ = {rho} × 10^-9 Ω·m)"
    )
    value = Fraction(rho * length, 1000) / area
    wrong = mistakes(
        Fraction(rho * length, 1000) * area, value * 10, value / 10, rho * area / length
    )
    steps = [
        f"A = {show(area)} × 10^-6 m².",
        f"R = ρ L / A = {rho} × 10^-9 Ω·m × {length} m / ({show(area)} × 10^-6 m²)",
    ]
    return numeric(stem, (name, length, area), value, "Ω", wrong, steps)


@template("materials", "bragg", 3)
def bragg(rng: Random) -> Draft:
    wave, spacing = rng.randrange(70, 200), rng.randrange(130, 450)
    order = rng.choice([1, 1, 2])
    if order * wave > 1.9 * spacing:
        return bragg(rng)
    stem = (
        f"X-rays of wavelength {wave} pm fall on planes {spacing} pm apart. At which angle θ is "
        f"the reflection of order {order}?"
    )
    sine = order * wave / (2 * spacing)
    value = math.degrees(math.asin(sine))
    wrong = mistakes(2 * value, 90 - value, value / 2, math.degrees(sine), math.degrees(1 - sine))
    steps = [
        f"sin θ = n λ / (2 d) = {order} × {wave} / (2 × {spacing}) = {significant(sine)}.",
        f"θ = arcsin {significant(sine)}",
    ]
    return numeric(stem, (wave, spacing, order), value, "°", wrong, steps, below=90)


@template("materials", "diffusion_depth", 3)
def diffusion_depth(rng: Random) -> Draft:
    lead, power = rng.randrange(10, 100), rng.randrange(11, 14)
    hours = rng.randrange(1, 49)
    stem = (
        f"Carbon diffuses in steel with D = {show(Fraction(lead, 10))} × 10^-{power} m²/s. "
        f"How deep does it get in {hours} h? Use x = √(D t)."
    )
    seconds = hours * 3600
    value = math.sqrt(lead / 10 * seconds / 10**power) * 1e6
    wrong = mistakes(value / 60, value * math.sqrt(2), value / math.sqrt(60), value * 2, value / 10)
    steps = [
        f"t = {hours} h = {seconds} s.",
        f"x = √({show(Fraction(lead, 10))} × 10^-{power} m²/s × {seconds} s)",
    ]
    return numeric(stem, (lead, power, hours), value, "µm", wrong, steps)


@template("materials", "rod_extension", 4)
def rod_extension(rng: Random) -> Draft:
    name, modulus = rng.choice(sorted(YOUNG.items()))
    load, diameter = Fraction(rng.randrange(10, 300), 10), rng.randrange(5, 40)
    length = Fraction(rng.randrange(5, 60), 10)
    stem = (
        f"A load of {show(load)} kN hangs on {article(name)} rod {show(length)} m long and "
        f"{diameter} mm in diameter. How much longer does it get? (E = {modulus} GPa)"
    )
    area = math.pi * diameter**2 / 4
    tension = float(load) * 1000 / area
    value = tension / modulus * float(length)
    wrong = mistakes(value / 4, value * 4, value * 10, value / 10, value / math.pi * 4)
    steps = [
        f"A = π d² / 4 = π × ({diameter} mm)² / 4 = {significant(area)} mm².",
        f"σ = F / A = {show(load * 1000)} N / {significant(area)} mm² "
        f"= {significant(tension)} MPa.",
        f"ε = σ / E = {significant(tension)} / {modulus * 1000} = "
        f"{scientific(tension / modulus / 1000)}.",
        f"ΔL = ε L = {scientific(tension / modulus / 1000)} × {show(length * 1000)} mm",
    ]
    return numeric(stem, (name, load, diameter, length), value, "mm", wrong, steps)


@template("materials", "thermal_stress", 4)
def thermal_stress(rng: Random) -> Draft:
    name = rng.choice(sorted(EXPANSION))
    alpha, modulus = EXPANSION[name], YOUNG[name]
    warmer, side = rng.randrange(10, 120), rng.randrange(5, 60)
    stem = (
        f"A square bar of {name} with sides of {side} mm is held between rigid walls and warmed "
        f"by {warmer} K. What force does it exert? (E = {modulus} GPa, α = {alpha} × 10^-6 per K)"
    )
    tension = Fraction(modulus * alpha * warmer, 1000)
    value = tension * side**2 / 1000
    wrong = mistakes(
        tension * side / 1000, tension * 4 * side / 1000, value * 10, value / 10, value / 2
    )
    steps = [
        f"ε = α ΔT = {alpha} × 10^-6 per K × {warmer} K = {alpha * warmer} × 10^-6.",
        f"σ = E ε = {modulus * 1000} MPa × {alpha * warmer} × 10^-6 = {significant(tension)} MPa.",
        f"F = σ a² = {significant(tension)} MPa × ({side} mm)² / 1000",
    ]
    return numeric(stem, (name, warmer, side), value, "kN", wrong, steps)


@template("materials", "crystal_density", 4)
def crystal_density(rng: Random) -> Draft:
    cell, atoms = rng.choice(sorted(CELLS.items()))
    edge, molar = rng.randrange(250, 620), rng.randrange(20, 210)
    stem = (
        f"A metal of molar mass {molar} g/mol has a {cell} lattice with an edge of {edge} pm. "
        "What is its density? (There are 6.022 × 10^23 atoms in a mole.)"
    )
    volume, mass = (edge * 1e-10) ** 3, atoms * molar / AVOGADRO
    value = mass / volume
    wrong = mistakes(value / atoms, value / atoms * 2, value / atoms * 4, value / 8, value * 2)
    steps = [
        f"Atoms in the unit cell: {atoms}. Their mass is {atoms} × {molar} g/mol / "
        f"(6.022 × 10^23 per mol) = {scientific(mass)} g.",
        f"Its volume is ({edge} × 10^-10 cm)³ = {scientific(volume)} cm³.",
        f"ρ = {scientific(mass)} g / ({scientific(volume)} cm³)",
    ]
    return numeric(stem, (cell, edge, molar), value, "g/cm³", wrong, steps)
