"""Questions on facts of chemistry: which of four things is a noble gas, is acidic, ...?

The options are names, so a model can answer with a name that it knows, before it has learnt to
bind letters to options. A wrong option is as long as a member of the category drawn at random, so
that lengths tell nothing. Splits share no question, but they share facts: another split asks for
the same thing among other options.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Any

from poise.data.load import DEFAULT_COUNT, register
from poise.data.prompts import STYLES, PromptStyle, get_style
from poise.rewards import LETTERS
from poise.splits import check_split, stable_split

if TYPE_CHECKING:
    from datasets import Dataset

# Tries per missing question. A split holds a tenth of a category's questions at least: this many
# fruitless draws mean that (nearly) all of them have been seen.
MAX_TRIES = 2000


def things(text: str) -> tuple[str, ...]:
    """Split a list of names, which may have several words each."""
    return tuple(text.split(", "))


@dataclass(frozen=True)
class Question:
    """Four options, one of them right.

    Args:
        id: Unique name of the question, options in this order included.
        template: Name of its category.
        stem: The question itself, without its options.
        options: Four different texts, in the order A, B, C, D.
        answer: Letter of the right option.
        fact: What makes it right.
    """

    id: str
    template: str
    stem: str
    options: tuple[str, ...]
    answer: str
    fact: str

    @property
    def right_option(self) -> str:
        """The text of the right option."""
        return self.options[LETTERS.index(self.answer)]


def bare_prompt(stem: str, options: Sequence[str]) -> str:
    """As the style ``short``, without an example: the model has the form of an answer to learn."""
    return f"Options: {', '.join(options)}\nQuestion: {stem}\nAnswer:"


STYLES["bare"] = PromptStyle(bare_prompt, STYLES["short"].reference)


@dataclass(frozen=True)
class Category:
    """Things of one kind that every school book names, in small letters.

    A thing stands in every category that it belongs to, so that the wrong options of a question
    can be drawn from all things outside the category.

    Args:
        asks: What is true of every member, as it stands in "Which of these ...?".
        members: The things.
        doubtful: Things on which school books disagree, or to which only a specialist would say
            no; they never stand in this question.
    """

    asks: str
    members: tuple[str, ...]
    doubtful: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``"is a noble gas"`` -> ``"recall_noble_gas"``."""
        words = self.asks.split()
        return "recall_" + "_".join(words[2:] if words[1] in ("a", "an") else words[1:])

    @cached_property
    def wrong(self) -> Mapping[str, float]:
        """The things that are surely not in this category, and that do not echo its name.

        Thing -> weight. All categories weigh the same, whatever their size: then no thing stands
        among the options much more often than it is the right one.
        """
        words = [word for word in self.asks.split() if len(word) > 2]
        never = {*self.members, *self.doubtful}
        weights: dict[str, float] = {}
        for other in CATEGORIES:
            for thing in other.members:
                if thing not in never and not any(word in thing for word in words):
                    weights[thing] = weights.get(thing, 0.0) + 1 / len(other.members)
        return weights

    def draw(self, rng: Random) -> tuple[str, ...]:
        """A member, and three things that are not."""
        right = rng.choice(self.members)
        others: list[str] = []
        while len(others) < 3:
            length = len(rng.choice(self.members))
            free = [thing for thing in self.wrong if thing not in others]
            gap = min(abs(len(thing) - length) for thing in free)
            near = [thing for thing in free if abs(len(thing) - length) == gap]
            others += rng.choices(near, [self.wrong[thing] for thing in near])
        return right, *others


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

CATEGORIES = (
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


@register("science")
def load(
    rest: str, split: str, count: int = DEFAULT_COUNT, seed: int = 0, style: str = "chat"
) -> Dataset:
    """`load_questions("science", ...)`, once this module is imported.

    Raises:
        ValueError: an unknown domain behind the colon, style or split, or a count out of range.
    """
    from datasets import Dataset

    if rest not in ("", "chemistry"):
        raise ValueError(f"science: expected the domain chemistry or none, found {rest!r}")
    form = get_style(style)
    return Dataset.from_list([_row(question, form) for question in generate(count, split, seed)])


def _row(question: Question, form: PromptStyle) -> dict[str, Any]:
    return {
        "id": question.id,
        "domain": "chemistry",
        "level": 0,
        "template": question.template,
        "prompt": form.prompt(question.stem, question.options),
        "answer": question.answer,
        "options": list(question.options),
        "privileged_context": form.reference(question.fact, question.answer, question.right_option),
    }


def generate(count: int = 100, split: str = "train", seed: int = 0) -> list[Question]:
    """Make questions, balanced over categories and answer letters.

    The same arguments give the same questions on every machine. No question occurs twice, and
    none of one split occurs in another under any seed: a hash of its content decides the split.

    Raises:
        ValueError: an unknown split, a count below one, or more than a category has.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, found {count}")
    check_split(split)
    letters, questions = cycle(LETTERS), []
    categories = sorted(CATEGORIES, key=lambda category: category.name)
    each, odd = divmod(count, len(categories))
    quotas = [each + (i < odd) for i in range(len(categories))]
    Random(f"poise science quotas {seed}").shuffle(quotas)  # who gets the odd ones is drawn
    for category, quota in zip(categories, quotas, strict=True):
        rng = Random(f"poise science {seed} {split} chemistry {category.name}")
        turn = [next(letters) for _ in range(quota)]
        rng.shuffle(turn)
        drawn = _draw(category, quota, split, rng)
        questions += [
            _question(category, options, letter, rng)
            for options, letter in zip(drawn, turn, strict=True)
        ]
    Random(f"poise science order {seed} {split}").shuffle(questions)
    return questions


def _draw(category: Category, quota: int, split: str, rng: Random) -> list[tuple[str, ...]]:
    """New questions of one category, until the quota is met."""
    found: dict[str, tuple[str, ...]] = {}
    tries = 0
    while len(found) < quota:
        right, *others = options = category.draw(rng)
        key = "|".join(["chemistry", category.name, right, *sorted(others)])
        tries += 1
        if key not in found and stable_split(key) == split:
            found[key] = options
            tries = 0
        elif tries >= MAX_TRIES:
            raise ValueError(
                f"science questions: expected {quota} different ones of {category.name} in split "
                f"{split!r}, found {len(found)}; lower the count"
            )
    return list(found.values())


def _question(category: Category, options: tuple[str, ...], letter: str, rng: Random) -> Question:
    right, *others = options
    rng.shuffle(others)
    others.insert(LETTERS.index(letter), right)
    stem = f"Which of these {category.asks}?"
    digest = hashlib.sha256("\n".join([stem, *others]).encode()).hexdigest()[:10]
    return Question(
        id=f"chemistry-{category.name}-{digest}",
        template=category.name,
        stem=stem,
        options=tuple(others),
        answer=letter,
        fact=f"{right.capitalize()} {category.asks}.",
    )
