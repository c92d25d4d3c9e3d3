"""The numbers that a text states, in digits or words, as exact fractions.

Choice: all of it is ours. Percentages and fractions are values (``50%``, ``half`` and ``0.5`` are
one quantity), ``twice`` and ``double`` are 2, a ``dozen`` is 12. Ordinals are quantities of their
own (``third`` and ``3rd`` are ``#3``). English words only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from unicodedata import normalize

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = (
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
)
CARDINALS = {word: value for value, word in enumerate(_SMALL.split())} | {
    word: 20 + 10 * place for place, word in enumerate(_TENS.split())
}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SPELT = frozenset({*CARDINALS, *SCALES})
ORDINALS = {word: value for value, word in enumerate(_ORDINALS.split())} | {"twentieth": 20}
_DENOMINATORS = {word: value for word, value in ORDINALS.items() if value > 2} | {
    "half": 2,
    "quarter": 4,
}
_PARTS = (
    _DENOMINATORS | {"halves": 2} | {f"{word}s": value for word, value in _DENOMINATORS.items()}
)
_MULTIPLES = {
    **dict.fromkeys(["twice", "double", "doubles", "doubled", "doubling"], 2),
    **dict.fromkeys(["thrice", "triple", "triples", "tripled", "tripling"], 3),
    **dict.fromkeys(["quadruple", "quadruples", "quadrupled"], 4),
}
NUMBER_WORDS = frozenset({*CARDINALS, *SCALES, *ORDINALS, *_PARTS, *_MULTIPLES, "percent"})

_HUGE = 10**30  # a text that goes on counting is no number
_TOKEN = re.compile(
    r"(?<![\w.])(?P<number>-?(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d{1,40})(?:\.\d{1,40})?|-?\.\d{1,40})"
    r"(?:/(?P<under>\d{1,40}))?(?P<place>(?:st|nd|rd|th)\b)?"
    r"|(?P<percent>%|per\s?cent\b)|(?P<word>[a-z]+)|(?P<break>[^\s-])"
)
# Behind the last token, and before the first.
_END = 3 * [dict.fromkeys(_TOKEN.groupindex, "")]
_SIGN = re.compile("[¼-¾⅐-⅞↉]")
_LATEX = re.compile(r"\\d?frac\{(\d+)\}\{(\d+)\}")


def quantities(text: str) -> Counter[str]:
    """How often a text states each quantity.

    Choice: the quantity 1 does not count, since ``one`` is a pronoun as often as a number, nor
    does ``first``, which also begins a tale.

    Returns:
        Canonical quantity (``"12"``, ``"3/4"``, ``"#2"``) -> count.
    """
    return Counter(name for name in _Reader(text).read() if name not in ("1", "#1"))


def numbers(text: str) -> list[str]:
    """The canonical numbers of a text in order, 1 included, ordinals not."""
    return [name for name in _Reader(text).read() if not name.startswith("#")]


class _Reader:
    """Reads the tokens of one text from left to right."""

    def __init__(self, text: str) -> None:
        self.tokens = [match.groupdict("") for match in _TOKEN.finditer(_plain(text))] + _END
        self.place = 0

    def read(self) -> Iterator[str]:
        while self.place < len(self.tokens) - len(_END):
            if (name := self._quantity()) is not None:
                yield name

    def word(self, ahead: int = 0) -> str:
        """The word at a distance, empty where there is none."""
        return self.tokens[self.place + ahead]["word"]

    def _quantity(self) -> str | None:
        """The quantity that begins here, None without one; moves behind it."""
        token, word = self.tokens[self.place], self.word()
        if token["place"]:
            self.place += 1
            return f"#{token['number'].replace(',', '')}"
        if token["number"]:
            value = self._digits()
        elif word in _SPELT:
            value = self._in_words()
            if value % 10 == 0 and value % 100 >= 20 and self.word() in ORDINALS:
                self.place += 1  # twenty-fifth
                return f"#{value + ORDINALS[self.word(-1)]}"
        else:
            return self._part_of_one() if word in ("a", "an") else self._lone_word()
        word = self.word()
        if word in _PARTS and (value == 1 or word not in _DENOMINATORS):
            self.place += 1  # two thirds
            value /= _PARTS[word]
        elif word == "and" and self.word(1) == "a" and self.word(2) in ("half", "quarter"):
            self.place += 3
            value += Fraction(1, _PARTS[self.word(-1)])
        if self.tokens[self.place]["percent"]:
            self.place += 1
            value /= 100
        return str(value)

    def _digits(self) -> Fraction:
        token, following = self.tokens[self.place : self.place + 2]
        value = _fraction(token)
        self.place += 1
        if following["under"] and value.denominator == 1 and not token["under"]:
            self.place += 1  # 2 1/2
            return value + _fraction(following)
        while self.word() in SCALES and value < _HUGE:
            value *= SCALES[self.word()]
            self.place += 1
        return value

    def _in_words(self) -> Fraction:
        """From `zero` to billions."""
        total, current, room = 0, 0, 10**12
        while True:
            word = self.word()
            skip = word == "and" and room == 100 and self.word(1) in CARDINALS
            word = self.word(1) if skip else word
            if word in SCALES and total + current < _HUGE:
                scale = SCALES[word]
                current = max(current, 1) * scale
                if scale >= 1000:
                    total, current = total + current, 0
                room = 100 if scale >= 100 else 0
            elif word in CARDINALS and CARDINALS[word] < room:
                current += CARDINALS[word]
                room = 10 if CARDINALS[word] >= 20 else 0
            else:
                return Fraction(total + current)
            self.place += 2 if skip else 1

    def _part_of_one(self) -> str | None:
        """`a half`, `a third of`, `a dozen`; `a third patient` is an ordinal."""
        self.place += 1
        word = self.word()
        of = self.word(1) in ("of", "as", "more", "less", "fewer")
        if word in _DENOMINATORS and (of or word in ("half", "quarter")):
            self.place += 1
            return str(Fraction(1, _DENOMINATORS[word]))
        if word == "second":
            self.place += 1  # miles a second
        return None

    def _lone_word(self) -> str | None:
        word = self.word()
        self.place += 1
        if word in ("half", "quarter"):
            value = Fraction(1, _PARTS[word])
            if self.word() == "a" and self.word(1) in SCALES:
                self.place += 2  # half a dozen
                value *= SCALES[self.word(-1)]
            return str(value)
        if word in _MULTIPLES:
            return str(_MULTIPLES[word])
        is_time = word == "second" and self.word(-2) in ("per", "each", "every")
        return f"#{ORDINALS[word]}" if word in ORDINALS and not is_time else None


def _fraction(token: Mapping[str, str]) -> Fraction:
    value = Fraction(token["number"].replace(",", ""))
    # A date or a version has a zero under the stroke, no fraction does.
    return value / int(token["under"]) if token["under"] and int(token["under"]) else value


def _plain(text: str) -> str:
    """Small letters, plain minus signs, and fractions as ``3/4``."""
    text = _LATEX.sub(r" \1/\2", text).replace("−", "-").replace("{,}", ",").replace("\\%", "%")
    return _SIGN.sub(lambda m: f" {normalize('NFKC', m[0])}".replace("⁄", "/"), text).lower()
