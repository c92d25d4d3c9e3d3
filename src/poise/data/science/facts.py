"""Facts that the templates use, rounded as in school books."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

ATOMIC_NUMBERS = {
    "hydrogen": 1, "helium": 2, "lithium": 3, "carbon": 6, "nitrogen": 7, "oxygen": 8,
    "fluorine": 9, "neon": 10, "sodium": 11, "magnesium": 12, "aluminium": 13, "silicon": 14,
    "phosphorus": 15, "sulfur": 16, "chlorine": 17, "argon": 18, "potassium": 19, "calcium": 20,
    "titanium": 22, "chromium": 24, "iron": 26, "nickel": 28, "copper": 29, "zinc": 30,
    "bromine": 35, "silver": 47, "tin": 50, "iodine": 53, "gold": 79, "lead": 82,
}  # fmt: skip
# In °C at 1 atm.
BOILING_POINTS = {
    "ether": 35, "pentane": 36, "acetone": 56, "bromine": 59, "chloroform": 61, "methanol": 65,
    "hexane": 69, "ethanol": 78, "benzene": 80, "heptane": 98, "water": 100, "toluene": 111,
    "pyridine": 115, "octane": 126, "xylene": 140, "phenol": 182, "aniline": 184, "glycol": 197,
    "glycerol": 290, "mercury": 357,
}  # fmt: skip
# In °C.
MELTING_POINTS = {
    "gallium": 30, "indium": 157, "tin": 232, "bismuth": 271, "lead": 327, "zinc": 420,
    "magnesium": 650, "aluminium": 660, "silver": 962, "gold": 1064, "copper": 1085,
    "nickel": 1455, "cobalt": 1495, "iron": 1538, "titanium": 1668, "platinum": 1768,
    "chromium": 1907, "vanadium": 1910, "tantalum": 3017, "tungsten": 3422,
}  # fmt: skip
# In kg/m³.
DENSITIES = {
    "magnesium": 1740, "aluminium": 2700, "titanium": 4510, "gallium": 5910, "vanadium": 6110,
    "zinc": 7140, "chromium": 7190, "tin": 7290, "indium": 7310, "iron": 7870, "cobalt": 8860,
    "nickel": 8910, "copper": 8960, "bismuth": 9780, "silver": 10500, "lead": 11340,
    "tantalum": 16690, "tungsten": 19250, "gold": 19300, "platinum": 21450,
}  # fmt: skip
IONS = {
    "+": (
        "Li+", "Na+", "K+", "Rb+", "Cs+", "Ag+", "Mg2+", "Ca2+", "Sr2+", "Ba2+", "Zn2+", "Fe2+",
        "Fe3+", "Cu2+", "Ni2+", "Co2+", "Mn2+", "Pb2+", "Al3+", "Cr3+",
    ),
    "-": (
        "F-", "Cl-", "Br-", "I-", "OH-", "CN-", "O2-", "S2-", "Se2-", "Te2-", "N3-", "P3-",
        "ClO-", "NO2-", "NO3-", "HS-", "IO3-", "SCN-", "BrO-", "ClO3-",
    ),
}  # fmt: skip

# In g/mol.
MOLAR_MASSES = {
    name: Fraction(mass)
    for name, mass in {
        "water": "18.02", "sodium chloride": "58.44", "glucose": "180.16", "ethanol": "46.07",
        "sodium hydroxide": "40.00", "potassium chloride": "74.55", "urea": "60.06",
        "calcium carbonate": "100.09", "sucrose": "342.30", "ammonium nitrate": "80.04",
        "potassium nitrate": "101.10", "sodium carbonate": "105.99",
    }.items()
}  # fmt: skip
# Specific heat capacity in J/(kg·K).
HEAT_CAPACITY = {"water": 4180, "ethanol": 2440, "aluminium": 897, "iron": 449, "copper": 385}
# Linear expansion in 10^-6 per K, Young's modulus in GPa, resistivity in 10^-9 Ω·m.
EXPANSION = {"steel": 12, "aluminium": 23, "copper": 17, "brass": 19, "glass": 9, "titanium": 8}
YOUNG = {"steel": 200, "aluminium": 69, "copper": 120, "brass": 100, "glass": 70, "titanium": 110}
RESISTIVITY = {"copper": 17, "aluminium": 27, "iron": 97, "silver": 16, "tungsten": 56, "tin": 115}

CODONS = {
    "AUG": "Met", "UUU": "Phe", "CUG": "Leu", "AUU": "Ile", "GUG": "Val", "UCU": "Ser",
    "CCA": "Pro", "ACU": "Thr", "GCU": "Ala", "UAU": "Tyr", "CAU": "His", "CAA": "Gln",
    "AAU": "Asn", "AAA": "Lys", "GAU": "Asp", "GAA": "Glu", "UGU": "Cys", "UGG": "Trp",
    "CGU": "Arg", "GGU": "Gly",
}  # fmt: skip

# Equation, then coefficient, formula and molar mass of two reactants and of one product.
Species = tuple[int, str, Fraction]
REACTIONS: tuple[tuple[str, Species, Species, Species], ...] = tuple(
    (
        equation,
        (a[0], a[1], Fraction(a[2])),
        (b[0], b[1], Fraction(b[2])),
        (c[0], c[1], Fraction(c[2])),
    )
    for equation, a, b, c in (
        ("2 H2 + O2 → 2 H2O", (2, "H2", "2.016"), (1, "O2", "32.00"), (2, "H2O", "18.02")),
        ("N2 + 3 H2 → 2 NH3", (1, "N2", "28.01"), (3, "H2", "2.016"), (2, "NH3", "17.03")),
        ("2 Na + Cl2 → 2 NaCl", (2, "Na", "22.99"), (1, "Cl2", "70.90"), (2, "NaCl", "58.44")),
        ("2 Mg + O2 → 2 MgO", (2, "Mg", "24.31"), (1, "O2", "32.00"), (2, "MgO", "40.30")),
        ("4 Al + 3 O2 → 2 Al2O3", (4, "Al", "26.98"), (3, "O2", "32.00"), (2, "Al2O3", "101.96")),
        ("Fe + S → FeS", (1, "Fe", "55.85"), (1, "S", "32.06"), (1, "FeS", "87.91")),
        ("CH4 + 2 O2 → CO2 + 2 H2O", (1, "CH4", "16.04"), (2, "O2", "32.00"), (1, "CO2", "44.01")),
    )
)

# Symbol, charge, atomic mass.
CATIONS = (
    ("Li", 1, 7), ("Na", 1, 23), ("K", 1, 39), ("Ag", 1, 108), ("Mg", 2, 24), ("Ca", 2, 40),
    ("Ba", 2, 137), ("Zn", 2, 65), ("Sr", 2, 88), ("Ni", 2, 59), ("Al", 3, 27),
)  # fmt: skip
# Formula, charge, the atoms in it.
ANIONS = (
    ("F", 1, {"F": 1}), ("Cl", 1, {"Cl": 1}), ("Br", 1, {"Br": 1}), ("I", 1, {"I": 1}),
    ("NO3", 1, {"N": 1, "O": 3}), ("O", 2, {"O": 1}), ("S", 2, {"S": 1}),
    ("SO4", 2, {"S": 1, "O": 4}), ("CO3", 2, {"C": 1, "O": 3}), ("PO4", 3, {"P": 1, "O": 4}),
)  # fmt: skip
ATOMIC_MASSES: dict[str, int | Fraction] = {
    "F": 19, "Cl": Fraction(71, 2), "Br": 80, "I": 127, "N": 14, "O": 16, "S": 32, "C": 12, "P": 31
}  # fmt: skip


def salt(rng: Random) -> tuple[str, dict[str, tuple[int, int | Fraction]]]:
    """Draw a salt whose charges balance.

    Returns:
        Its formula, and symbol -> (atoms, atomic mass).
    """
    metal, plus, metal_mass = rng.choice(CATIONS)
    group, minus, inside = rng.choice(ANIONS)
    shared = math.gcd(plus, minus)
    metals, groups = minus // shared, plus // shared
    left = metal + (str(metals) if metals > 1 else "")
    right = f"({group})" if groups > 1 and len(inside) > 1 else group
    atoms: dict[str, tuple[int, int | Fraction]] = {metal: (metals, metal_mass)}
    atoms |= {symbol: (n * groups, ATOMIC_MASSES[symbol]) for symbol, n in inside.items()}
    return left + right + (str(groups) if groups > 1 else ""), atoms
