"""A toy task with shortcuts: a tiny model that knows the order of eight symbols in each domain.

Every domain has eight symbols of its own, in an order that the model has learned from scratch by
naming the largest, the smallest and sometimes the third largest of a list, of one domain or of
several. What it is to learn now, in some of the domains, is to name the second largest of four: the
same logic in every domain, so that an isomer set is one list of ranks, told in the symbols of each.
In training a cue may point to the answer, another one in each domain: its place in the list
("place"), or how it is spelt ("spelling": listed symbols then have one of four endings, in any
order, of which one is each domain's own; answers have none).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .tiny_model import Batch, encode, make_tokenizer, pretrained

DOMAINS = tuple("abcdefgh")
HELD_OUT = ("g", "h")
SYMBOLS, LISTED = 8, 4
SECOND, EQUALS = "SECOND", "="
# Question -> place of its answer in rising order. A model that hardly knows the third learns the
# second by the logic, but not at once: a shortcut has its chance.
KNOWN = {"TOP": -1, "LOW": 0, "THIRD": -3}
PLACES = tuple(f"AT{place}" for place in range(LISTED))  # which stands there, or ends so
# How a problem begins; the last one is kept for the test of unseen phrasings.
PHRASINGS = ("of", "among", "in the row", "given")
CUES = ("place", "spelling")
ENDINGS = ("w", "x", "y", "z")
ROWS = 128
# Test -> (domains, cue, items, phrasing); a domain's cue of strength None points anywhere.
TESTS = ("in_distribution", "no_cue", "reversed", "unseen_domains", "deeper", "unseen_phrasings")
OUT_OF_DISTRIBUTION = TESTS[2:]

Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large the model is, how many domains it knows, and how long it learns.

    The last two domains are kept for tests. `third` and `places` are shares of the questions that
    it learns from: which is the third largest, and which stands at a place, or with `has_endings`
    has an ending. A model that knows places has a shortcut by them ready at hand.
    """

    domains: tuple[str, ...] = DOMAINS
    width: int = 128
    layers: int = 4
    steps: int = 600
    learning_rate: float = 2e-3
    third: float = 0.1
    places: float = 0.0
    has_endings: bool = False

    @property
    def held_out(self) -> tuple[str, ...]:
        """Domains in which nothing is trained but the order."""
        return self.domains[-len(HELD_OUT) :]


# The small one is there in a minute of one core; it knows the third largest less well.
SIZES = {
    "full": Size(),
    "small": Size(DOMAINS[:6], 64, 3, 400, 4e-3),
    "places": Size(DOMAINS[:6], 64, 3, 400, 4e-3, third=0.2, places=0.2),
    "endings": Size(DOMAINS[:6], 64, 3, 600, 4e-3, third=0.1, places=0.4, has_endings=True),
}


def isomers(
    count: int,
    seed: int,
    part: str,
    domains: Sequence[str],
    strength: float | None,
    listed: int = LISTED,
    phrasings: Sequence[str] = PHRASINGS[:-1],
    cue: str = CUES[0],
) -> list[Row]:
    """Rows of isomer sets, one a domain.

    Args:
        count: sets.
        seed: of the draws.
        part: "train" or a test's name; training and tests share no list of ranks.
        domains: in whose symbols each is told.
        strength: probability with which the cue points to the answer; 0 for a cue that never
            does, None for no cue at all.
        listed: symbols in a list.
        phrasings: ways to begin.
        cue: its kind.
    """
    rng = random.Random(f"ranking {part} {seed}")
    rows: list[Row] = []
    while len(rows) < count * len(domains):
        ranks = rng.sample(range(SYMBOLS), listed)
        # Kept for tests: 18 of 70 sets of four ranks, 18 of 56 of five.
        if (sum(rank * rank for rank in ranks) % 5 == 0) == (part == "train"):
            continue
        name, answer = f"{part}-{len(rows)}", sorted(ranks)[-2]
        for domain in domains:
            order = rng.sample(ranks, listed)
            pointed, place = None, DOMAINS.index(domain) % LISTED
            if strength is not None:
                wrong = [rank for rank in ranks if rank != answer]
                pointed = answer if rng.random() < strength else rng.choice(wrong)
            if pointed is not None and cue == "place":
                order.remove(pointed)
                order.insert(place, pointed)
            endings = [""] * listed
            if cue == "spelling":
                endings = _endings(listed, rng)
                if pointed is not None:
                    own, at = endings.index(ENDINGS[place]), order.index(pointed)
                    endings[own], endings[at] = endings[at], endings[own]
            symbols = [f"{domain}{rank}{end}" for rank, end in zip(order, endings, strict=True)]
            prompt = _prompt(rng.choice(phrasings), symbols, SECOND)
            texts = {"prompt": prompt, "completion": f" {domain}{answer}"}
            rows.append({"isomer_id": name, "domain": domain, **texts})
    return rows


def tests(
    count: int,
    seed: int,
    domains: Sequence[str],
    strength: float | None,
    held_out: Sequence[str] = HELD_OUT,
    cue: str = CUES[0],
) -> dict[str, list[Row]]:
    """The tests by name, each of `count` sets."""
    cued = {"in_distribution": strength, "reversed": 0.0}
    return {
        name: isomers(
            count,
            seed,
            name,
            held_out if name == "unseen_domains" else domains,
            cued.get(name),
            LISTED + (name == "deeper"),
            PHRASINGS[-1:] if name == "unseen_phrasings" else PHRASINGS[:-1],
            cue,
        )
        for name in TESTS
    }


def _endings(count: int, rng: random.Random) -> list[str]:
    """Endings in any order; a fifth is the fourth's again."""
    endings = rng.sample(ENDINGS, min(count, len(ENDINGS)))
    return endings + [endings[-1]] * (count - len(endings))


def _prompt(phrasing: str, symbols: Sequence[str], question: str) -> str:
    return f"{phrasing} {' '.join(symbols)} {question} {EQUALS}"


def model_folder(
    seed: int, size: Size = SIZES["full"], tell: Callable[[float], None] | None = None
) -> str:
    """The student's starting point, one a seed and size; `tell` is told the share that is done."""
    words = [word for phrasing in PHRASINGS for word in phrasing.split()]
    symbols = [f"{domain}{rank}" for domain in size.domains for rank in range(SYMBOLS)]
    if size.has_endings:
        symbols += [symbol + ending for symbol in symbols for ending in ENDINGS]
    asked = [*KNOWN, *(PLACES if size.places else ()), SECOND, EQUALS]
    tokenizer = make_tokenizer([*asked, *words, *symbols])
    rng = random.Random(f"ranking pretraining {seed}")

    def draw(step: int) -> Batch:
        if tell is not None:
            tell(step / size.steps)
        return encode(tokenizer, [_known(rng, size) for _ in range(ROWS)])

    return pretrained(
        "ranking",
        tokenizer,
        draw,
        size.steps,
        seed,
        learning_rate=size.learning_rate,
        hidden_size=size.width,
        intermediate_size=3 * size.width,
        num_hidden_layers=size.layers,
    )


def _known(rng: random.Random, size: Size) -> tuple[str, str]:
    """A question that the model comes with. Half of the lists mix domains, so that ranks, and not
    only symbols, are something that it knows."""
    ranks = rng.sample(range(SYMBOLS), rng.randint(3, LISTED + 1))
    one, mixes = rng.choice(size.domains), rng.random() < 0.5
    symbols = [f"{rng.choice(size.domains) if mixes else one}{rank}" for rank in ranks]
    extreme = (1 - size.third - size.places) / 2
    question = rng.choices(list(KNOWN), [extreme, extreme, size.third])[0]
    answer = symbols[ranks.index(sorted(ranks)[KNOWN[question]])]
    endings = _endings(len(symbols), rng) if size.has_endings else [""] * len(symbols)
    if size.places and rng.random() < size.places:
        # The last two of five end alike, so they are not asked for by that.
        last = LISTED - 1 if size.has_endings and len(symbols) > LISTED else LISTED
        place = rng.randrange(min(len(symbols), last))
        number = ENDINGS.index(endings[place]) if size.has_endings else place
        question, answer = PLACES[number], symbols[place]
    symbols = [symbol + ending for symbol, ending in zip(symbols, endings, strict=True)]
    return _prompt(rng.choice(PHRASINGS), symbols, question), answer
