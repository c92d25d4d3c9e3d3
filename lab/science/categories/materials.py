"""Categories of materials."""

from __future__ import annotations

from .category import Category, things

ALLOYS = things(
    "steel, brass, bronze, solder, pewter, stainless steel, duralumin, invar, nitinol, cast iron, "
    "inconel, nichrome, amalgam, sterling silver, phosphor bronze, carbon steel"
)
PURE_METALS = things(
    "iron, copper, aluminium, zinc, nickel, tin, lead, titanium, gold, silver, platinum, "
    "tungsten, magnesium, chromium"
)
POLYMERS = things(
    "nylon, polyethylene, polystyrene, polypropylene, polycarbonate, polyester, teflon, acrylic, "
    "epoxy, silicone, bakelite, kevlar, neoprene, rubber, "
    "polyurethane, polyvinyl chloride"
)
CERAMICS = things(
    "porcelain, earthenware, stoneware, terracotta, brick, alumina, zirconia, magnesia, "
    "silicon nitride"
)
SEMICONDUCTORS = things(
    "silicon, germanium, gallium arsenide, gallium nitride, indium phosphide, cadmium telluride"
)
COMPOSITES = things(
    "fibreglass, plywood, concrete, chipboard, fibreboard, reinforced concrete, asphalt"
)
WOODS = things(
    "oak, pine, teak, mahogany, ebony, balsa, maple, birch, walnut, cedar, beech, spruce"
)
MINERALS = things(
    "quartz, feldspar, mica, calcite, gypsum, pyrite, hematite, talc, halite, magnetite, olivine, "
    "fluorite, topaz"
)
ROCKS = things("granite, basalt, marble, limestone, sandstone, slate, shale, gneiss, pumice, chalk")
FIBRES = things("cotton, wool, silk, linen, jute, hemp, cashmere, mohair, flax, sisal")
FABRICS = things("denim, velvet, felt, canvas, satin, flannel, corduroy, tweed, muslin, chiffon")
STONES = (*MINERALS, *ROCKS)

MATERIALS = (
    Category("is an alloy", ALLOYS),
    Category("is a pure metal", PURE_METALS, doubtful=SEMICONDUCTORS),
    Category("is a polymer", POLYMERS, doubtful=(*COMPOSITES, *WOODS, *FIBRES, *FABRICS)),
    Category("is a ceramic", CERAMICS, doubtful=(*SEMICONDUCTORS, *COMPOSITES, *STONES)),
    Category("is a semiconductor", SEMICONDUCTORS, doubtful=(*CERAMICS, *STONES)),
    Category("is a composite material", COMPOSITES, doubtful=(*WOODS, *ROCKS, "brick")),
    Category("is a kind of wood", WOODS, doubtful=COMPOSITES),
    Category("is a mineral", MINERALS, doubtful=(*PURE_METALS, *SEMICONDUCTORS, *CERAMICS)),
    Category("is a rock", ROCKS, doubtful=(*MINERALS, *CERAMICS, *COMPOSITES)),
    Category("is a natural fibre", FIBRES, doubtful=(*FABRICS, *WOODS, *COMPOSITES)),
    Category("is a fabric", FABRICS, doubtful=(*FIBRES, *POLYMERS, *COMPOSITES)),
    Category(
        "is an electrical conductor",
        (*PURE_METALS, *ALLOYS),
        doubtful=(*SEMICONDUCTORS, *STONES, *COMPOSITES),
    ),
    Category(
        "is an electrical insulator",
        (*POLYMERS, *CERAMICS),
        doubtful=(*SEMICONDUCTORS, *COMPOSITES, *WOODS, *STONES, *FIBRES, *FABRICS),
    ),
)
