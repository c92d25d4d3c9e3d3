"""Physics: mechanics, electricity, heat and waves."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

from .drafts import mistakes, numeric
from .facts import HEAT_CAPACITY
from .numbers import show, significant
from .registry import Draft, template

G = Fraction(981, 100)


@template("physics", "speed", 2)
def speed(rng: Random) -> Draft:
    distance, time = rng.randrange(20, 500), rng.randrange(4, 60)
    who = rng.choice(["cyclist", "runner", "car", "boat"])
    stem = f"A {who} covers {distance} m in {time} s. What is the average speed?"
    wrong = mistakes(
        Fraction(time, distance), distance * time, distance - time, Fraction(distance, 60)
    )
    steps = [f"v = d / t = {distance} m / {time} s"]
    value = Fraction(distance, time)
    return numeric(stem, (who, distance, time), value, "m/s", wrong, steps)


@template("physics", "ohms_law", 2)
def ohms_law(rng: Random) -> Draft:
    voltage, resistance = rng.randrange(3, 240), rng.randrange(2, 90)
    stem = f"What current flows through a resistor of {resistance} Ω at a voltage of {voltage} V?"
    wrong = mistakes(voltage * resistance, Fraction(resistance, voltage), voltage - resistance)
    steps = [f"I = V / R = {voltage} V / {resistance} Ω"]
    value = Fraction(voltage, resistance)
    return numeric(stem, (voltage, resistance), value, "A", wrong, steps)


@template("physics", "momentum", 2)
def momentum(rng: Random) -> Draft:
    mass, velocity = Fraction(rng.randrange(5, 200), 10), rng.randrange(2, 60)
    stem = f"What is the momentum of a ball of {show(mass)} kg that moves at {velocity} m/s?"
    wrong = mistakes(mass * velocity**2, mass * velocity / 2, mass + velocity, velocity / mass)
    steps = [f"p = m v = {show(mass)} kg × {velocity} m/s"]
    return numeric(stem, (mass, velocity), mass * velocity, "kg·m/s", wrong, steps)


@template("physics", "acceleration", 2)
def acceleration(rng: Random) -> Draft:
    force, mass = rng.randrange(5, 300), Fraction(rng.randrange(5, 300), 10)
    stem = f"What acceleration does a net force of {force} N give to a mass of {show(mass)} kg?"
    wrong = mistakes(force * mass, mass / force, force / (mass * G), force / mass * G)
    steps = [f"a = F / m = {force} N / {show(mass)} kg"]
    return numeric(stem, (force, mass), force / mass, "m/s²", wrong, steps)


@template("physics", "kinetic_energy", 2)
def kinetic_energy(rng: Random) -> Draft:
    mass, velocity = rng.randrange(2, 90), rng.randrange(3, 40)
    stem = f"What is the kinetic energy of a body of {mass} kg that moves at {velocity} m/s?"
    value = Fraction(mass * velocity**2, 2)
    wrong = mistakes(mass * velocity**2, Fraction(mass * velocity, 2), mass * velocity, value / 2)
    steps = [f"E = m v² / 2 = {mass} kg × ({velocity} m/s)² / 2"]
    return numeric(stem, (mass, velocity), value, "J", wrong, steps)


@template("physics", "wave_speed", 2)
def wave_speed(rng: Random) -> Draft:
    frequency, length = rng.randrange(20, 900), Fraction(rng.randrange(11, 990), 100)
    stem = (
        f"A wave has a frequency of {frequency} Hz and a wavelength of {show(length)} m. "
        "What is its speed?"
    )
    wrong = mistakes(frequency / length, length / frequency, frequency * length / 2)
    steps = [f"v = f λ = {frequency} Hz × {show(length)} m"]
    return numeric(stem, (frequency, length), frequency * length, "m/s", wrong, steps)


@template("physics", "speeding_up", 3)
def speeding_up(rng: Random) -> Draft:
    start, gain = 9 * rng.randrange(2, 14), Fraction(rng.randrange(5, 60), 10)
    time = rng.randrange(2, 16)
    first = Fraction(start * 10, 36)
    stem = (
        f"A car moves at {start} km/h and accelerates at {show(gain)} m/s² for {time} s. "
        "What is its final speed?"
    )
    wrong = mistakes(
        start + gain * time, first + gain, gain * time, start * Fraction(18, 5) + gain * time
    )
    steps = [
        f"{start} km/h / 3.6 = {show(first)} m/s.",
        f"v = u + a t = {show(first)} m/s + {show(gain)} m/s² × {time} s",
    ]
    return numeric(stem, (start, gain, time), first + gain * time, "m/s", wrong, steps)


@template("physics", "heating", 3)
def heating(rng: Random) -> Draft:
    name = rng.choice(sorted(HEAT_CAPACITY))
    heat, mass = HEAT_CAPACITY[name], rng.randrange(50, 950, 10)
    cold = rng.randrange(10, 30)
    hot = cold + rng.randrange(5, 50)
    stem = (
        f"How much heat warms {mass} g of {name} from {cold} °C to {hot} °C? "
        f"The specific heat capacity of {name} is {heat} J/(kg·K)."
    )
    value = Fraction(mass * heat * (hot - cold), 10**6)
    wrong = mistakes(
        value * 1000, value * hot / (hot - cold), value / 10, value * cold / (hot - cold)
    )
    steps = [
        f"The temperature rises by {hot} °C - {cold} °C = {hot - cold} K.",
        f"Q = m c ΔT = {show(Fraction(mass, 1000))} kg × {heat} J/(kg·K) × {hot - cold} K",
    ]
    return numeric(stem, (name, mass, cold, hot), value, "kJ", wrong, steps)


@template("physics", "thin_lens", 3)
def thin_lens(rng: Random) -> Draft:
    focal = rng.randrange(5, 60)
    far = focal + rng.randrange(3, 120)
    stem = (
        f"An object stands {far} cm in front of a converging lens of focal length {focal} cm. "
        "How far behind the lens is its image?"
    )
    value = Fraction(far * focal, far - focal)
    wrong = mistakes(
        Fraction(far * focal, far + focal), far - focal, far + focal, Fraction(far, focal)
    )
    inverse = Fraction(far - focal, far * focal)
    steps = [
        f"1/v = 1/f - 1/u = 1/{focal} cm - 1/{far} cm = {significant(inverse)} per cm.",
        f"v = {far} × {focal} / ({far} - {focal}) cm",
    ]
    return numeric(stem, (focal, far), value, "cm", wrong, steps)


@template("physics", "two_resistors", 3)
def two_resistors(rng: Random) -> Draft:
    first, second = rng.randrange(3, 90), rng.randrange(3, 90)
    voltage = rng.randrange(6, 120)
    stem = (
        f"Resistors of {first} Ω and {second} Ω are in parallel across {voltage} V. "
        "What is the total current?"
    )
    parallel = Fraction(first * second, first + second)
    wrong = mistakes(
        Fraction(voltage, first + second),
        Fraction(voltage, first),
        voltage * parallel,
        Fraction(voltage, second),
    )
    steps = [
        f"R = {first} × {second} / ({first} + {second}) Ω = {significant(parallel)} Ω.",
        f"I = V / R = {voltage} V / {significant(parallel)} Ω",
    ]
    given = (*sorted((first, second)), voltage)
    return numeric(stem, given, voltage / parallel, "A", wrong, steps)


@template("physics", "hitting_and_sticking", 4)
def hitting_and_sticking(rng: Random) -> Draft:
    light, heavy = rng.randrange(2, 30), rng.randrange(2, 30)
    velocity = rng.randrange(3, 30)
    stem = (
        f"A cart of {light} kg moving at {velocity} m/s hits a cart of {heavy} kg at rest, and "
        "they stick together. How much kinetic energy is lost?"
    )
    total = light + heavy
    common = Fraction(light * velocity, total)
    before, after = Fraction(light * velocity**2, 2), total * common**2 / 2
    wrong = mistakes(after, before, 2 * (before - after), Fraction(heavy * velocity**2, 2))
    steps = [
        f"Together they move at {light} × {velocity} / {total} m/s = {significant(common, 6)} m/s.",
        f"Before: E = {light} × {velocity}² / 2 J = {significant(before)} J.",
        f"After: E = {total} × {significant(common, 6)}² / 2 J = {significant(after)} J.",
        f"Lost: {significant(before)} J - {significant(after)} J",
    ]
    return numeric(stem, (light, heavy, velocity), before - after, "J", wrong, steps)


@template("physics", "braking", 4)
def braking(rng: Random) -> Draft:
    kmh, friction = rng.randrange(30, 140), Fraction(rng.randrange(30, 95), 100)
    stem = (
        f"A car brakes from {kmh} km/h to rest with all wheels locked. The coefficient of "
        f"friction is {show(friction)} and g = 9.81 m/s². How long is the braking distance?"
    )
    start, slowing = Fraction(kmh * 10, 36), friction * G
    value = start**2 / (2 * slowing)
    wrong = mistakes(
        kmh**2 / (2 * slowing), start**2 / slowing, start / slowing, start**2 / (2 * G)
    )
    steps = [
        f"{kmh} km/h / 3.6 = {significant(start)} m/s.",
        f"a = μ g = {show(friction)} × 9.81 m/s² = {significant(slowing)} m/s².",
        f"s = v² / (2 a) = ({significant(start)} m/s)² / (2 × {significant(slowing)} m/s²)",
    ]
    return numeric(stem, (kmh, friction), value, "m", wrong, steps)


@template("physics", "projectile", 4)
def projectile(rng: Random) -> Draft:
    velocity, height = rng.randrange(3, 50), rng.randrange(2, 120)
    stem = (
        f"A stone is thrown horizontally at {velocity} m/s from a cliff {height} m high. "
        "How far from the foot of the cliff does it land? (g = 9.81 m/s²)"
    )
    fall = math.sqrt(2 * height / float(G))
    wrong = mistakes(
        velocity * fall**2,
        velocity * math.sqrt(height / float(G)),
        velocity * fall / 2,
        velocity * height / float(G),
    )
    steps = [
        f"It falls for t = √(2 h / g) = √(2 × {height} m / 9.81 m/s²) = {significant(fall)} s.",
        f"d = v t = {velocity} m/s × {significant(fall)} s",
    ]
    return numeric(stem, (velocity, height), velocity * fall, "m", wrong, steps)
