"""Whether a version is kept: its answer, quantities and relations stay, its wording does not.

Choice: the comparison of texts is ours, for English. It counts the quantities
(`quantities.quantities`) and, by kind, the words that compare, condition, quantify, negate or
order. It is a sieve for faults, not a proof: a version that swaps two people passes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from ..answers import MARKER
from ..meanings import Answer, bare, mentions, read_answer, read_options
from ..quantities import NUMBER_WORDS, numbers, quantities
from .problems import SourceProblem
from .prompts import Version

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
    *("younger", "shorter", "lighter", "slower", "cheaper", "weaker", "thinner", "narrower"),
    *("poorer", "worse", "nearer", "colder", "cooler", "softer", "milder", "rarer"),
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


def review(
    problem: SourceProblem,
    domain: str,
    version: Version,
    others: Mapping[str, str],
    max_overlap: float,
    slack: int,
) -> list[str]:
    """What is wrong with a version; empty if it is kept.

    It is kept if the answer survives and the reasoning reaches it, the quantities and relations
    survive, and its wording is not that of another domain, nor that of the source where this is
    known to be in another domain. `others` are the prompts that are kept already, by domain;
    `max_overlap` and `slack` are as in `Plan`.
    """
    asked, prompt = problem.prompt, version.prompt
    answer = answer_fault(problem.answer, asked, version)
    faults = [answer] if answer else []
    if not faults and not _reaches(problem.answer, version):
        faults.append(f"the reasoning never names the answer {version.answer!r}")
    if MARKER in prompt:
        faults.append(f"expected a prompt without {MARKER!r}, which announces the answer")
    faults += quantity_faults(asked, prompt)
    faults += relation_faults(asked, prompt, slack)
    if problem.domain not in (None, domain):
        others = {f"the source ({problem.domain})": asked, **others}
    for name, other in others.items():
        if (share := overlap(prompt, other)) > max_overlap:
            faults.append(
                f"it shares {share:.0%} of its content words with {name}, at most "
                f"{max_overlap:.0%} may be shared"
            )
    return faults


def answer_fault(source: Answer, asked: str, version: Version) -> str | None:
    """Why a version's answer is not the source's, None if it is.

    Choice: the right option stands in the same place, a truth word is the same, a number has the
    same value. For a name the version says which name stands for which.
    """
    prompt, answer = version.prompt, version.answer
    if source.kind == "name":
        return _name_fault(source, asked, version)
    count, found_count = len(read_options(asked)), len(read_options(prompt))
    if source.kind == "option" and found_count != count:
        found = found_count or "none"
        return f"expected {count} options in the source's order and form, found {found}"
    read = read_answer(prompt, answer)
    if read is None or (read.kind, read.logical) != (source.kind, source.logical):
        shown = "none that can be read" if read is None else _meaning(read)
        return f"expected the answer {_meaning(source)}, found {answer!r}, {shown}"
    return None


def _name_fault(source: Answer, asked: str, version: Version) -> str | None:
    names = version.names
    mapped = {bare(old): bare(new) for old, new in names.items()}
    if mapped.get(bare(source.text)) != bare(version.answer):
        return (
            f"expected `names` to map {source.text!r}, the source's answer, to the new answer "
            f"{version.answer!r}, found {dict(names)}"
        )
    if len(set(mapped.values())) != len(mapped):
        return f"expected different names to stay different, found {dict(names)}"
    absent = [old for old in names if not mentions(asked, old)]
    absent += [new for new in names.values() if not mentions(version.prompt, new)]
    if absent:
        return f"expected names that the problems mention, found {absent[0]!r} in `names`"
    return None


def _meaning(answer: Answer) -> str:
    if answer.kind == "option":
        return f"that is option {int(answer.logical[1:]) + 1}"
    return repr(answer.logical)


def _reaches(source: Answer, version: Version) -> bool:
    """Whether the reasoning names the answer; a truth word may be said in many ways."""
    reasoning = version.reasoning
    if source.kind == "number":
        return source.logical in numbers(reasoning)
    if source.kind == "option":
        place = int(source.logical[1:])
        # A letter in its own case, since an "a" is none.
        named = re.search(rf"\b{chr(ord('A') + place)}\b", reasoning) is not None
        return named or mentions(reasoning, read_options(version.prompt)[place])
    return source.kind == "truth" or mentions(reasoning, version.answer)


def relations(text: str) -> Counter[str]:
    """How many relation words of each kind a text has."""
    found: Counter[str] = Counter()
    for match in _RELATION.finditer(text.lower().replace("’", "'")):
        word = match["phrase"] or match["comparative"]
        if match["contraction"]:
            found["not"] += 1
        elif word in _PHRASES:
            found[_PHRASES[word]] += 1
        elif word not in _NOT_COMPARING:
            found["less" if word in _DOWNWARDS else "more"] += 1
    return found


def quantity_faults(source: str, version: str) -> list[str]:
    """Why the quantities of a version are not those of its source; empty if they are.

    Choice: every quantity must be stated at least as often as in the source, and a quantity may
    be repeated, but none may be new: a new number changes the problem or betrays the answer.
    """
    old, new = (quantities(_MARK.sub(" ", text)) for text in (source, version))
    lost, added = ", ".join(sorted(old - new)), ", ".join(sorted(set(new) - set(old)))
    faults = [f"the quantity {lost} of the source is missing"] if lost else []
    return faults + ([f"the quantity {added} is not in the source"] if added else [])


def relation_faults(source: str, version: str, slack: int = 1) -> list[str]:
    """Why the relations of a version are not those of its source; empty if they are.

    Choice: a kind that the source has must stay and no kind may be added. Where both have it, the
    counts may differ by `slack` words, since the same thing can be said twice.
    """
    faults, before, after = [], relations(source), relations(version)
    for kind in RELATIONS:
        old, new = before[kind], after[kind]
        if (old == 0) != (new == 0) or abs(old - new) > slack:
            like = ", ".join(RELATIONS[kind][:4])
            faults.append(f"words of the kind {kind!r} ({like}): {old} in the source, {new} here")
    return faults


def content_words(text: str) -> frozenset[str]:
    """The words that carry a story: no function, relation or number words; plurals as singulars."""
    words = _WORD.findall(_MARK.sub(" ", text).lower())
    return frozenset(_singular(word) for word in words if len(word) > 1 and word not in _IDLE_WORDS)


def overlap(first: str, second: str) -> float:
    """Jaccard index of the content words of two texts, in [0, 1]; 1 where neither has any."""
    one, other = content_words(first), content_words(second)
    union = one | other
    return len(one & other) / len(union) if union else 1.0


def _singular(word: str) -> str:
    is_plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if is_plural else word
