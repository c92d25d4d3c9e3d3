"""Categories of biology."""

from __future__ import annotations

from .category import Category, things

TREES = things("oak, maple, pine, birch, willow, elm, beech, spruce, cedar, poplar, chestnut")
BONES = things(
    "femur, tibia, fibula, rib, humerus, radius, ulna, sternum, scapula, clavicle, "
    "patella, mandible"
)

BIOLOGY = (
    Category(
        "is a mammal",
        things(
            "whale, dolphin, bat, horse, tiger, elephant, kangaroo, mouse, seal, monkey, "
            "otter, giraffe, camel, walrus, platypus"
        ),
    ),
    Category(
        "is a bird",
        things(
            "eagle, penguin, ostrich, owl, parrot, sparrow, duck, pigeon, flamingo, swan, "
            "raven, chicken, robin, pelican"
        ),
    ),
    Category(
        "is a reptile",
        things(
            "lizard, crocodile, turtle, snake, gecko, alligator, iguana, tortoise, cobra, "
            "python, chameleon, viper"
        ),
    ),
    Category(
        "is an amphibian", things("frog, toad, salamander, newt, axolotl, tree frog, bullfrog")
    ),
    Category(
        "is a fish",
        things(
            "salmon, tuna, shark, trout, cod, herring, eel, carp, seahorse, pike, stingray, "
            "mackerel, sardine"
        ),
    ),
    Category(
        "is an insect",
        things(
            "beetle, ant, butterfly, mosquito, bee, wasp, dragonfly, grasshopper, cockroach, "
            "moth, termite, cricket, ladybird"
        ),
    ),
    Category("is an arachnid", things("spider, scorpion, tick, mite, tarantula, black widow")),
    Category(
        "is a crustacean",
        things("crab, lobster, shrimp, prawn, crayfish, barnacle, krill, woodlouse"),
    ),
    Category(
        "is a mollusc",
        things("snail, squid, octopus, clam, oyster, mussel, slug, scallop, cuttlefish"),
    ),
    Category("is a tree", TREES),
    Category(
        "is a plant",
        (*TREES, *things("fern, moss, rose, wheat, grass, cactus, tulip, daisy, clover, ivy")),
    ),
    Category(
        "is a fungus",
        things("yeast, mushroom, mould, truffle, toadstool, chanterelle, puffball, morel"),
    ),
    Category(
        "is an organ",
        things("heart, liver, lung, kidney, brain, stomach, skin, spleen, pancreas, bladder"),
        doubtful=BONES,
    ),
    Category("is a bone", BONES),
    Category(
        "is an organelle",
        things(
            "nucleus, mitochondrion, ribosome, chloroplast, vacuole, lysosome, peroxisome, "
            "centriole, golgi apparatus"
        ),
    ),
    Category(
        "is a hormone",
        things(
            "insulin, adrenaline, oestrogen, testosterone, cortisol, melatonin, glucagon, "
            "thyroxine, progesterone, prolactin, oxytocin, leptin"
        ),
    ),
    Category(
        "is an enzyme",
        things(
            "amylase, lipase, pepsin, trypsin, lactase, catalase, cellulase, protease, "
            "maltase, urease"
        ),
    ),
)
