"""Categories of physics."""

from __future__ import annotations

from .category import Category, things

MASSES = things("gram, kilogram, milligram, microgram, tonne, ounce, carat")
ENERGIES = things(
    "joule, kilojoule, megajoule, calorie, kilocalorie, electronvolt, kilowatt hour, erg"
)
INSTRUMENTS = things(
    "thermometer, barometer, voltmeter, ammeter, manometer, hygrometer, speedometer, "
    "stopwatch, ruler, balance, calorimeter, seismograph"
)
OPTICS = things(
    "lens, mirror, prism, telescope, microscope, periscope, magnifying glass, kaleidoscope"
)
VECTORS = things(
    "velocity, force, acceleration, momentum, displacement, weight, torque, electric "
    "field, magnetic field, impulse"
)
SCALARS = things(
    "mass, speed, temperature, energy, time, distance, density, volume, pressure, "
    "power, electric charge, frequency"
)

PHYSICS = (
    Category(
        "is a unit of length",
        things(
            "metre, kilometre, centimetre, millimetre, micrometre, nanometre, inch, foot, "
            "yard, mile, light year, parsec, fathom"
        ),
    ),
    Category(
        "is a unit of time",
        things(
            "second, minute, hour, day, week, year, decade, century, millisecond, "
            "microsecond, nanosecond"
        ),
    ),
    Category("is a unit of mass", MASSES, doubtful=("electronvolt",)),
    Category("is a unit of energy", ENERGIES),
    Category(
        "is a unit of force",
        things("newton, kilonewton, meganewton, millinewton, micronewton, dyne"),
        doubtful=MASSES,
    ),
    Category(
        "is a unit of power", things("watt, kilowatt, megawatt, gigawatt, milliwatt, microwatt")
    ),
    Category(
        "is a unit of pressure",
        things("pascal, kilopascal, hectopascal, megapascal, bar, millibar, atmosphere, torr"),
        doubtful=("millimetre", "centimetre", "inch"),
    ),
    Category(
        "is a unit of volume",
        things("litre, millilitre, centilitre, decilitre, gallon, pint, quart, bushel"),
        doubtful=("ounce",),
    ),
    Category("is a unit of frequency", things("hertz, kilohertz, megahertz, gigahertz, terahertz")),
    Category(
        "is a subatomic particle",
        things(
            "electron, proton, neutron, quark, muon, neutrino, positron, gluon, pion, kaon, photon"
        ),
    ),
    Category(
        "is a planet", things("mercury, venus, earth, mars, jupiter, saturn, uranus, neptune")
    ),
    Category(
        "is a simple machine",
        things("lever, pulley, wedge, screw, ramp, inclined plane"),
        doubtful=("balance",),
    ),
    Category("is a measuring instrument", INSTRUMENTS, doubtful=OPTICS),
    Category("is an optical device", OPTICS, doubtful=INSTRUMENTS),
    Category("is a vector quantity", VECTORS),
    Category("is a scalar quantity", SCALARS),
)
