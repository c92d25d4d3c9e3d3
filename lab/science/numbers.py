"""Exact rounding and the writing of numbers.

Values stay ``int`` or ``Fraction`` where the formula allows, so that the rounding of an
answer is the same on every machine; floats enter only through roots, logarithms, sines.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal
from fractions import Fraction

Number = int | float | Fraction

# Fifty digits hold every exact decimal that a template makes, so halves round as on paper.
_CONTEXT = Context(prec=50, rounding=ROUND_HALF_UP)
_PLAIN_RANGE = (Decimal("0.001"), Decimal("1000000"))


def decimal(value: Number) -> Decimal:
    """The value as a decimal, exact when it has one of at most fifty digits."""
    fraction = Fraction(value)
    return _CONTEXT.divide(Decimal(fraction.numerator), Decimal(fraction.denominator))


def show(value: Number) -> str:
    """Write a given quantity in full, without trailing zeros: ``2.5``, ``40``."""
    text = format(decimal(value), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def round_to(value: Number, digits: int) -> Decimal:
    """Round to significant digits, halves away from zero."""
    exact = decimal(value)
    for _ in range(2):  # a second time where rounding up adds a digit: 9.996 -> 10.0
        quantum = Decimal(1).scaleb(exact.adjusted() - digits + 1)
        exact = exact.quantize(quantum, context=_CONTEXT)
    return exact


def significant(value: Number, digits: int = 4) -> str:
    """Write with significant digits, by default as many as a step on the way needs: ``12.30``."""
    return format(round_to(value, digits), "f")


def scientific(value: Number, digits: int = 4) -> str:
    """Write as ``1.234 × 10^-5``."""
    rounded = round_to(value, digits)
    exponent = rounded.adjusted()
    return f"{format(rounded.scaleb(-exponent), 'f')} × 10^{exponent}"


def width(value: float) -> int:
    """The length of `significant` with three digits, without writing it."""
    exponent = int(f"{value:.2e}".partition("e")[2])
    if exponent < 0:
        return 4 - exponent
    return 4 if exponent < 2 else exponent + 1


def fixed(value: Number, places: int) -> str:
    """Write with the given number of decimal places: ``7.40``."""
    return format(decimal(value).quantize(Decimal(1).scaleb(-places), context=_CONTEXT), "f")


def is_plain(value: Number) -> bool:
    """Whether a value is written without a power of ten."""
    low, high = _PLAIN_RANGE
    return low <= abs(decimal(value)) < high


def article(text: str) -> str:
    """Put ``a`` or ``an`` before a number or noun as it is spoken: ``an 18 kg``, ``an alga``."""
    number = text.split()[0].split(".")[0]
    vowel = text[0] in "aeioAEIO8" or number in ("11", "18")
    return f"{'an' if vowel else 'a'} {text}"
