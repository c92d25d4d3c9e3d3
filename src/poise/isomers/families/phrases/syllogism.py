"""Sets of things in each domain: one kind of thing, told apart by adjectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ADJECTIVES: Mapping[str, tuple[str, ...]] = {
    "mathematics": (
        *("tame", "regular", "simple", "perfect", "cyclic", "planar", "sparse", "rigid"),
        *("normal", "stable", "dense", "exact"),
    ),
    "medicine": (
        *("diabetic", "feverish", "anemic", "elderly", "allergic", "insured", "dizzy", "pale"),
        *("fasting", "asthmatic", "vaccinated", "sedated"),
    ),
    "law": (
        *("sealed", "disputed", "notarized", "secured", "oral", "voidable", "renewed", "foreign"),
        *("binding", "public", "amended", "joint"),
    ),
    "science": (
        *("acidic", "magnetic", "brittle", "soluble", "opaque", "volatile", "porous", "toxic"),
        *("organic", "elastic", "radioactive", "metallic"),
    ),
    "logistics": (
        *("fragile", "urgent", "heavy", "chilled", "oversized", "prepaid", "returned", "tracked"),
        *("stackable", "imported", "labeled", "bulky"),
    ),
    "sports": (
        *("tall", "rested", "left-handed", "injured", "veteran", "agile", "popular", "suspended"),
        *("local", "muscular", "patient", "nervous"),
    ),
}


@dataclass(frozen=True)
class Wording:
    """How statements on sets are put; "{x}" and "{y}" are adjectives.

    Args:
        nouns: What the things are, in the plural.
        all: All x are y.
        no: No x is y.
        some: Some x are y.
        ask_all: Are all x y?
        ask_some: Is any x y?
    """

    nouns: str
    all: str
    no: str
    some: str
    ask_all: str
    ask_some: str


def _plain(nouns: str) -> Wording:
    return Wording(
        nouns,
        f"all {{x}} {nouns} are {{y}}",
        f"no {{x}} {nouns} are {{y}}",
        f"some {{x}} {nouns} are {{y}}",
        f"Are all {{x}} {nouns} {{y}}?",
        f"Are any {{x}} {nouns} {{y}}?",
    )


def _single(noun: str, nouns: str) -> Wording:
    return Wording(
        nouns,
        f"every {{x}} {noun} is {{y}}",
        f"no {{x}} {noun} is {{y}}",
        f"at least one {{x}} {noun} is {{y}}",
        f"Is every {{x}} {noun} {{y}}?",
        f"Is any {{x}} {noun} {{y}}?",
    )


def _unseen(nouns: str) -> Wording:
    return Wording(
        nouns,
        f"without exception, {{x}} {nouns} are {{y}}",
        f"there are no {{x}} {nouns} that are {{y}}",
        f"there are {{x}} {nouns} that are {{y}}",
        f"Is it true that all {{x}} {nouns} are {{y}}?",
        f"Is it true that some {{x}} {nouns} are {{y}}?",
    )


PHRASES: Mapping[str, tuple[Wording, ...]] = {
    "mathematics": (_plain("graphs"), _single("lattice", "lattices"), _unseen("groups")),
    "medicine": (_plain("patients"), _single("child", "children"), _unseen("donors")),
    "law": (_plain("contracts"), _single("deed", "deeds"), _unseen("claims")),
    "science": (_plain("minerals"), _single("compound", "compounds"), _unseen("powders")),
    "logistics": (_plain("parcels"), _single("crate", "crates"), _unseen("pallets")),
    "sports": (_plain("players"), _single("runner", "runners"), _unseen("goalkeepers")),
}
