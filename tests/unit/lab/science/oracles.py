"""A second, plain computation of every template's answer, from the text of the question alone.

Each oracle reads the numbers in a stem, in order, and knows the formula. It shares no code with
the templates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

# A number that belongs to no formula (H2O) and no exponent, perhaps with a power of ten.
_NUMBER = re.compile(r"(?<![A-Za-z\d.^)])(\d+(?:\.\d+)?)(?: × 10\^(-?\d+))?")


def numbers(text: str) -> list[float]:
    """All numbers of a text, in order."""
    return [float(m[1]) * 10.0 ** int(m[2] or 0) for m in _NUMBER.finditer(text)]


def _atoms(formula: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group, times, symbol, n in re.findall(r"\((\w+)\)(\d*)|([A-Z][a-z]?)(\d*)", formula):
        inside = _atoms(group) if group else {symbol: int(n or 1)}
        for name, amount in inside.items():
            counts[name] = counts.get(name, 0) + amount * int(times or 1)
    return counts


def _mass_of_salt(n: list[float], stem: str) -> float:
    formula = re.search(r"mol of (\S+)\?", stem)[1]
    masses = dict(re.findall(r"([A-Z][a-z]?) (\d+(?:\.\d+)?)", stem.split("g/mol: ")[1]))
    return n[0] * sum(float(masses[a]) * k for a, k in _atoms(formula).items())


def _limiting(n: list[float], stem: str) -> float:
    left, right = stem.split(". ")[0].split(" → ")
    parts = {}
    for part in (left + " + " + right).split(" + "):
        times, formula = re.fullmatch(r"(?:(\d) )?(\w+)", part).groups()
        parts[formula] = int(times or 1)
    product, m1, first, m2, second = re.search(
        r"mass of (\w+) can form from (\d+) g of (\w+) and (\d+) g of (\w+)", stem
    ).groups()
    molar = dict(re.findall(r"(\w+) (\d+(?:\.\d+)?)", stem.split("g/mol: ")[1]))
    runs = min(
        float(m) / float(molar[formula]) / parts[formula]
        for m, formula in ((m1, first), (m2, second))
    )
    return runs * parts[product] * float(molar[product])


def _titration(n: list[float], stem: str) -> float:
    acid = re.search(r"mL of (\w+) is", stem)[1]
    return n[1] * n[2] / n[0] / _atoms(acid)["H"]


def _monohybrid(n: list[float], stem: str) -> float:
    recessive = re.search(r"over (\S+) \(a\)", stem)[1]
    offspring = [a + b for a in "Aa" for b in ("aa" if "Aa × aa" in stem else "Aa")]
    share = sum(pair == "aa" for pair in offspring) / 4
    return n[0] * (share if f"expected to be {recessive}?" in stem else 1 - share)


def _carriers(n: list[float], stem: str) -> float:
    q = math.sqrt(n[0] / n[1])
    return 2 * q * (1 - q) * n[2]


def _crystal(n: list[float], stem: str) -> float:
    atoms = {"simple": 1, "body-centred": 2, "face-centred": 4}
    count = next(k for name, k in atoms.items() if name in stem)
    return count * n[0] / n[2] / (n[1] * 1e-10) ** 3


Oracle = Callable[[list[float], str], float]
ORACLES: dict[str, Oracle] = {
    # physics
    "speed": lambda n, s: n[0] / n[1],
    "ohms_law": lambda n, s: n[1] / n[0],
    "momentum": lambda n, s: n[0] * n[1],
    "acceleration": lambda n, s: n[0] / n[1],
    "kinetic_energy": lambda n, s: 0.5 * n[0] * n[1] ** 2,
    "wave_speed": lambda n, s: n[0] * n[1],
    "speeding_up": lambda n, s: n[0] / 3.6 + n[1] * n[2],
    "heating": lambda n, s: n[0] / 1000 * n[3] * (n[2] - n[1]) / 1000,
    "thin_lens": lambda n, s: 1 / (1 / n[1] - 1 / n[0]),
    "two_resistors": lambda n, s: n[2] / n[0] + n[2] / n[1],
    "hitting_and_sticking": lambda n, s: 0.5 * n[1] ** 2 * n[0] * n[2] / (n[0] + n[2]),
    "braking": lambda n, s: (n[0] / 3.6) ** 2 / (2 * n[1] * n[2]),
    "projectile": lambda n, s: n[0] * math.sqrt(2 * n[1] / n[2]),
    # chemistry
    "moles_from_mass": lambda n, s: n[0] / n[1],
    "mass_from_moles": lambda n, s: n[0] * n[1],
    "dilution": lambda n, s: n[0] * n[1] / n[2],
    "percent_yield": lambda n, s: 100 * n[1] / n[0],
    "ph_of_acid": lambda n, s: -math.log10(n[0]),
    "percent_by_mass": lambda n, s: 100 * n[0] / (n[0] + n[1]),
    "molarity": lambda n, s: n[0] / n[1] / n[2] * 1000,
    "mass_of_salt": _mass_of_salt,
    "radioactive_decay": lambda n, s: n[1] * 0.5 ** (n[2] / n[0]),
    "ideal_gas": lambda n, s: n[0] * n[3] * (n[2] + 273.15) / n[1],
    "limiting_reagent": _limiting,
    "titration": _titration,
    "ph_after_mixing": lambda n, s: -math.log10((n[0] * n[1] - n[2] * n[3]) / (n[0] + n[2])),
    # biology
    "amino_acids": lambda n, s: n[0] / 3 - 1,
    "base_pairing": lambda n, s: 50 - n[0],
    "monohybrid_cross": _monohybrid,
    "mark_and_recapture": lambda n, s: n[0] * n[1] / n[2],
    "cardiac_output": lambda n, s: n[0] * n[1] / 1000,
    "magnification": lambda n, s: n[0] * 1000 / n[1],
    "hardy_weinberg": lambda n, s: 2 * math.sqrt(n[1]) * (1 - math.sqrt(n[1])) * n[0],
    "bacterial_growth": lambda n, s: n[0] * 2 ** (n[2] / n[1]),
    "recombination": lambda n, s: 100 * (n[2] + n[3]) / sum(n),
    "plate_count": lambda n, s: n[2] / (n[1] / 1000) * 10 ** n[0] * n[3],
    "carriers": _carriers,
    "food_chain": lambda n, s: n[0] * (n[1] / 100) ** 2 * n[2] * n[3],
    # materials
    "density": lambda n, s: n[0] / n[1],
    "stress": lambda n, s: n[0] / n[1],
    "strain": lambda n, s: 100 * n[1] / n[0],
    "youngs_modulus": lambda n, s: n[1] / 1000 / (n[0] / 100),
    "safety_factor": lambda n, s: n[0] / n[1],
    "rule_of_mixtures": lambda n, s: n[0] / 100 * n[1] + (1 - n[0] / 100) * n[2],
    "thermal_expansion": lambda n, s: n[0] * 1000 * n[3] * (n[2] - n[1]),
    "wire_resistance": lambda n, s: n[2] * n[0] / (n[1] * 1e-6),
    "bragg": lambda n, s: math.degrees(math.asin(n[2] * n[0] / (2 * n[1]))),
    "diffusion_depth": lambda n, s: math.sqrt(n[0] * n[1] * 3600) * 1e6,
    "rod_extension": lambda n, s: (
        n[0] * 1e3 * n[1] / (math.pi * (n[2] / 2e3) ** 2 * n[3] * 1e9) * 1e3
    ),
    "thermal_stress": lambda n, s: n[2] * 1e9 * n[3] * n[1] * (n[0] / 1e3) ** 2 / 1e3,
    "crystal_density": _crystal,
}


def _protein(stem: str, options: tuple[str, ...]) -> str:
    """Transcribe 3'-template-5' into 5'-mRNA-3' and read it with the codons given."""
    strand = re.search(r"3'-([ACGT]+)-5'", stem)[1]
    mrna = strand.translate(str.maketrans("ACGT", "UGCA"))
    table = dict(re.findall(r"([ACGU]{3}) ([A-Z][a-z]{2})", stem.split("Codons: ")[1]))
    return "-".join(table[mrna[i : i + 3]] for i in range(0, len(mrna), 3))


def _largest(stem: str, options: tuple[str, ...]) -> str:
    high = "smallest" not in stem
    return (max if high else min)(options, key=lambda text: numbers(text)[0])


def _most_acidic(stem: str, options: tuple[str, ...]) -> str:
    return (min if "acidic" in stem else max)(options, key=lambda text: float(text[3:]))


LOW_WORDS = ("fewest", "lowest", "slowest", "lightest", "softest", "least")


def _named(stem: str, options: tuple[str, ...]) -> str:
    listed, question = stem.split(". ")
    values = dict(re.findall(r"(?:: |, )([\w ]+?) (\d+)", listed))
    low = any(word in question for word in LOW_WORDS)
    assert set(values) == set(options)
    return (min if low else max)(values, key=lambda name: int(values[name]))


def _sign(stem: str, options: tuple[str, ...]) -> str:
    sign = "-" if "negative" in stem else "+"
    (found,) = [text for text in options if sign in text]
    return found


def _strand(stem: str, options: tuple[str, ...]) -> str:
    base = "U" if "RNA" in stem else "T"
    (found,) = [text for text in options if base in text]
    return found


TEXT_ORACLES: dict[str, Callable[[str, tuple[str, ...]], str]] = {
    "translation": _protein,
    "largest_amount": _largest,
    "largest_quantity": _largest,
    "largest_measure": _largest,
    "largest_property": _largest,
    "most_acidic": _most_acidic,
    "sign_of_ion": _sign,
    "sign_of_charge": _sign,
    "rna_or_dna": _strand,
    "atomic_number": _named,
    "boiling_point": _named,
    "fastest_car": _named,
    "heaviest_box": _named,
    "heaviest_dog": _named,
    "most_colonies": _named,
    "hardest_sample": _named,
    "melting_point": _named,
    "densest_metal": _named,
}
