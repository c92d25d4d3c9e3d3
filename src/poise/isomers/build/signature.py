"""The structural signature of a text: what must stay when its story changes.

Choice: all of it is ours, for English text. The signature holds the quantities
(`quantities.quantities`) and, by kind, the number of words that compare, condition, quantify,
negate or order. It is a sieve for faults, not a proof: a retelling that swaps two people passes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from ..quantities import NUMBER_WORDS, quantities

# Kind -> words and phrases. The longest phrase that fits is read, so that the "more" in "no more
# than" is no "more".
RELATIONS: dict[str, tuple[str, ...]] = {
    "at least": ("at least", "no less than", "no fewer than", "not less than", "or more"),
    "at most": ("at most", "no more than", "not more than", "or less", "or fewer", "up to"),
    "more": ("more", "greater", "larger", "bigger", "higher", "above", "exceeds", "exceed"),
    "less": ("less", "fewer", "smaller", "lower", "below", "under"),
    "most": ("most", "greatest", "largest", "biggest", "highest", "maximum"),
    "least": ("least", "fewest", "smallest", "lowest", "minimum"),
    "equal": ("equal", "equals", "equally", "same", "as many", "as much", "identical"),
    "if": ("if", "whenever", "provided", "implies", "in case"),
    "unless": ("unless", "otherwise"),
    "only": ("only",),
    "all": ("all", "every", "each", "per"),
    "some": ("some", "exists"),
    "not": ("no", "not", "none", "never", "neither", "nor", "cannot", "without"),
    "or": ("or", "either"),
    "before": ("before", "earlier", "prior", "precedes"),
    "after": ("after", "later", "following", "follows"),
}
# Comparatives that point downwards; any other "-er than" points upwards.
_DOWNWARDS = (
    "younger shorter lighter slower cheaper weaker thinner narrower poorer worse nearer colder "
    "cooler softer milder rarer"
)
_NOT_COMPARING = frozenset(["rather", "other", "whether", "never", "together"])
# Words that carry no story, those of every question among them.
_IDLE = """
    a about again also am an and another any are as at be because been being both but by can
    come could did do does doing done down for from get gets given gives had has have having he her
    here hers him his how i in into is it its itself just let like made make makes many may me
    might mine much must my now of off on once one ones other others our out own s shall she should
    so such t take takes than that the their them then there these they this those through to
    together too toward until upon us use used very was we were what when where which while who
    whom whose why will with would yes you your there's it's answer question option options find
    know known suppose total altogether left remain remains remaining number amount value
"""

_PHRASES = {phrase: kind for kind, phrases in RELATIONS.items() for phrase in phrases}
_RELATION_WORDS = frozenset(word for phrase in _PHRASES for word in phrase.split())
_RELATION = re.compile(
    r"\b(?:(?P<comparative>[a-z]{3,}er|worse) than|(?P<contraction>[a-z]+n't)|(?P<phrase>"
    + "|".join(sorted(map(re.escape, _PHRASES), key=len, reverse=True))
    + r"))\b"
)
_IDLE_WORDS = frozenset(_IDLE.split()) | _RELATION_WORDS | NUMBER_WORDS
_WORD = re.compile(r"[^\W\d_]+")
# A lettered option's mark is no word of the tale.
_MARK = re.compile(r"(?m)(?:^|(?<=\s))\(?[A-H][).]\s")


@dataclass(frozen=True)
class Signature:
    """What must stay.

    Args:
        quantities: Canonical quantity -> how often it is stated.
        relations: Kind of `RELATIONS` -> how many of its words there are.
    """

    quantities: Counter[str]
    relations: Counter[str]


def read_signature(text: str) -> Signature:
    """The signature of a text, options included."""
    return Signature(quantities(_MARK.sub(" ", text)), relations(text))


def relations(text: str) -> Counter[str]:
    """How many relation words of each kind a text has."""
    plain = text.lower().replace("’", "'")
    return Counter(
        kind for match in _RELATION.finditer(plain) if (kind := _kind(match)) is not None
    )


def _kind(match: re.Match[str]) -> str | None:
    if match["contraction"]:
        return "not"
    if match["phrase"]:
        return _PHRASES[match["phrase"]]
    word = match["comparative"]
    if word in _NOT_COMPARING:
        return None
    return _PHRASES.get(word, "less" if word in _DOWNWARDS.split() else "more")


def quantity_faults(source: Signature, told: Signature) -> list[str]:
    """Why the quantities of a retelling are not those of its source; empty if they are.

    Choice: every quantity must be stated at least as often as in the source, and a quantity may
    be repeated, but none may be new: a new number changes the problem or betrays the answer.
    """
    lost = source.quantities - told.quantities
    new = {name: n for name, n in told.quantities.items() if name not in source.quantities}
    faults = [f"the quantity {_shown(lost)} of the source is missing"] if lost else []
    return faults + ([f"the quantity {_shown(new)} is not in the source"] if new else [])


def relation_faults(source: Signature, told: Signature, slack: int = 1) -> list[str]:
    """Why the relations of a retelling are not those of its source; empty if they are.

    Choice: a kind that the source has must stay and no kind may be added. Where both have it, the
    counts may differ by `slack` words, since the same thing can be said twice.
    """
    faults = []
    for kind in RELATIONS:
        old, new = source.relations[kind], told.relations[kind]
        if (old == 0) != (new == 0) or abs(old - new) > slack:
            like = ", ".join(RELATIONS[kind][:4])
            faults.append(f"words of the kind {kind!r} ({like}): {old} in the source, {new} here")
    return faults


def content_words(text: str) -> frozenset[str]:
    """The words that carry a story: no function, relation or number words; plurals as singulars."""
    words = _WORD.findall(_MARK.sub(" ", text).lower().replace("’", "'"))
    return frozenset(_singular(word) for word in words if len(word) > 1 and word not in _IDLE_WORDS)


def overlap(first: str, second: str) -> float:
    """Jaccard index of the content words of two texts, in [0, 1]; 1 where neither has any."""
    one, other = content_words(first), content_words(second)
    union = one | other
    return len(one & other) / len(union) if union else 1.0


def _singular(word: str) -> str:
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if is_plural else word


def _shown(names: Counter[str] | dict[str, int]) -> str:
    return ", ".join(sorted(names))
