"""Categories of chemistry."""

from __future__ import annotations

from .category import Category, things

NOBLE_GASES = things("helium, neon, argon, krypton, xenon, radon")
HALOGENS = things("fluorine, chlorine, bromine, iodine, astatine")
ALKALI = things("lithium, sodium, potassium, rubidium, caesium, francium")
ALKALINE_EARTH = things("beryllium, magnesium, calcium, strontium, barium, radium")
TRANSITION = things(
    "iron, copper, nickel, cobalt, chromium, titanium, manganese, tungsten, vanadium, gold, "
    "silver, platinum, palladium"
)
METALS = (*ALKALI, *ALKALINE_EARTH, *TRANSITION, "zinc", "tin", "lead", "aluminium")
ELEMENTS = (
    *METALS, *NOBLE_GASES, *HALOGENS,
    "hydrogen", "oxygen", "nitrogen", "carbon", "sulfur", "phosphorus",
)  # fmt: skip
ACIDIC = things(
    "vinegar, lemon juice, orange juice, lime juice, apple juice, tomato juice, cola, lemonade, "
    "coffee, yoghurt, ketchup, honey, aspirin"
)
ALKALINE = things(
    "bleach, soap, ammonia, baking soda, washing soda, caustic soda, lye, limewater, "
    "slaked lime, quicklime, oven cleaner, seawater, egg white, potash, borax"
)
SUGARS = things(
    "glucose, fructose, sucrose, lactose, maltose, galactose, ribose, xylose, mannose, trehalose"
)
ALCOHOLS = things("methanol, ethanol, propanol, butanol, pentanol, hexanol, glycerol, menthol")
GASEOUS_HYDROCARBONS = things("methane, ethane, propane, butane, ethylene, acetylene, propylene")
OTHER_HYDROCARBONS = things("pentane, hexane, heptane, octane, benzene, toluene, naphthalene")
GASES = (
    *NOBLE_GASES, *GASEOUS_HYDROCARBONS,
    "hydrogen", "oxygen", "nitrogen", "fluorine", "chlorine", "ammonia",
)  # fmt: skip

CHEMISTRY = (
    Category("is a noble gas", NOBLE_GASES),
    Category("is a halogen", HALOGENS),
    Category("is an alkali metal", ALKALI),
    Category("is an alkaline earth metal", ALKALINE_EARTH),
    Category("is a transition metal", TRANSITION, doubtful=("zinc",)),
    Category("is a metal", METALS),
    Category("is a chemical element", ELEMENTS),
    Category("is acidic", ACIDIC, doubtful=(*HALOGENS, *ALCOHOLS)),
    Category("is alkaline", ALKALINE, doubtful=(*ALKALI, *ALKALINE_EARTH)),
    Category("is a sugar", SUGARS, doubtful=ACIDIC),
    Category("is an alcohol", ALCOHOLS, doubtful=SUGARS),
    Category("is a hydrocarbon", (*GASEOUS_HYDROCARBONS, *OTHER_HYDROCARBONS)),
    Category("is a gas at room temperature", GASES),
)
