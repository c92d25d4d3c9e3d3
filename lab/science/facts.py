"""Facts that the templates use, rounded as in school books."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

# All symbols have two letters, so that a long name gives nothing away.
ATOMIC_NUMBERS = {
    "He": 2, "Li": 3, "Be": 4, "Ne": 10, "Na": 11, "Mg": 12, "Al": 13, "Si": 14, "Cl": 17,
    "Ar": 18, "Ca": 20, "Ti": 22, "Cr": 24, "Mn": 25, "Fe": 26, "Co": 27, "Ni": 28, "Cu": 29,
    "Zn": 30, "Br": 35, "Kr": 36, "Ag": 47, "Sn": 50, "Xe": 54, "Ba": 56, "Pt": 78, "Au": 79,
    "Hg": 80, "Pb": 82, "Ra": 88,
}  # fmt: skip
# In °C at 1 atm; all names have seven letters, for the same reason.
BOILING_POINTS = {
    "pentane": 36, "acetone": 56, "bromine": 59, "ethanol": 78, "benzene": 80, "heptane": 98,
    "dioxane": 101, "toluene": 111, "butanol": 118, "pyrrole": 129, "styrene": 145,
    "anisole": 154, "hexanol": 157, "aniline": 184, "octanol": 195, "menthol": 212,
    "nonanol": 214, "decanol": 233, "mercury": 357,
}  # fmt: skip
# Melting point in °C and density in kg/m³.
METALS = {
    "Ga": (30, 5910), "In": (157, 7310), "Sn": (232, 7290), "Bi": (271, 9780), "Cd": (321, 8650),
    "Pb": (327, 11340), "Zn": (420, 7140), "Mg": (650, 1740), "Al": (660, 2700),
    "Ag": (962, 10500), "Au": (1064, 19300), "Cu": (1085, 8960), "Mn": (1246, 7210),
    "Ni": (1455, 8910), "Co": (1495, 8860), "Fe": (1538, 7870), "Pd": (1555, 12020),
    "Ti": (1668, 4510), "Pt": (1768, 21450), "Zr": (1855, 6520), "Cr": (1907, 7190),
    "Rh": (1964, 12410), "Hf": (2233, 13310), "Ir": (2446, 22560), "Nb": (2477, 8570),
    "Mo": (2623, 10280), "Ta": (3017, 16690), "Re": (3186, 21020),
}  # fmt: skip
IONS = {
    "+": (
        "Li+", "Na+", "Rb+", "Cs+", "Ag+", "Mg2+", "Ca2+", "Sr2+", "Ba2+", "Zn2+", "Fe2+",
        "Fe3+", "Cu2+", "Ni2+", "Co2+", "Mn2+", "Pb2+", "Al3+", "Cr3+",
    ),
    "-": (
        "Cl-", "Br-", "OH-", "CN-", "HS-", "O2-", "S2-", "N3-", "P3-", "Se2-", "Te2-", "ClO-",
        "BrO-", "NO2-", "NO3-", "IO3-", "SCN-",
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
SOLUBLE = (
    "sodium chloride", "glucose", "sodium hydroxide", "potassium chloride", "urea", "sucrose",
    "ammonium nitrate", "potassium nitrate", "sodium carbonate",
)  # fmt: skip
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
