"""Branches over thresholds: if one value is above t, do this; otherwise look at the next value.

Depth d nests d + 1 conditions. Each leads to an outcome on one side and to the next condition on
the other; the last leads to outcomes on both. The outcome that is reached is drawn evenly, so
some values are told that turn out not to matter.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..lexicon import CHOICES, draw_names, sentence
from ..model import Form, Story
from .phrases.branching import PHRASES, Ruling

LOWEST, HIGHEST, NEAREST = 11, 95, 3
MOST_OPTIONS = 4


class Branching:
    """Which outcome do nested conditions lead to?

    ``data``: ``levels``, each with ``value``, ``threshold``, ``when`` (``"above"`` or
    ``"below"``) and ``leaves`` (whether the condition leads out if it holds, or if it does not);
    ``told``, the order in which values are told. Outcome i leaves level i; the last outcome is
    where the last condition leads otherwise.
    """

    name = "branching"
    depths = range(1, 5)
    phrasings = 3

    def draw(self, rng: random.Random, depth: int) -> Form:
        """Random conditions with a random outcome."""
        count = depth + 1
        answer = rng.randrange(count + 1)
        levels = [
            _level(rng, rng.random() < 0.5 if i > answer else i == answer) for i in range(count)
        ]
        others = [outcome for outcome in range(count + 1) if outcome != answer]
        others = rng.sample(others, min(len(others), MOST_OPTIONS - 1))
        return Form(
            family=self.name,
            depth=depth,
            data={"levels": levels, "told": rng.sample(range(count), count)},
            answer=f"e{answer}",
            options=tuple(f"e{outcome}" for outcome in sorted([answer, *others])),
        )

    def tell(self, form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
        """Reasoning: each condition that is reached, and where it leads."""
        ruling, levels = PHRASES[domain][phrasing], form.data["levels"]
        outcomes = draw_names(domain, len(levels) + 1, rng, CHOICES)
        quantities = rng.sample(ruling.quantities, len(levels))
        orders = [ruling.do.format(x=outcome) for outcome in outcomes]
        rules = _rules(ruling, levels, quantities, orders)
        values = [
            ruling.value.format(q=quantities[i], v=levels[i]["value"]) for i in form.data["told"]
        ]
        return Story(
            facts=tuple(map(sentence, [*values, *rules])),
            question=ruling.question,
            steps=tuple(map(sentence, _steps(ruling, levels, quantities, orders))),
            names={option: outcomes[int(option[1:])] for option in form.options},
        )


FAMILY = Branching()


def _level(rng: random.Random, leaves_here: bool) -> dict[str, Any]:
    """A condition that leads out, or on."""
    threshold = 5 * rng.randrange(LOWEST // 5 + 1, HIGHEST // 5)
    far = [v for v in range(LOWEST, HIGHEST + 1) if abs(v - threshold) >= NEAREST]
    level = {
        "when": rng.choice(("above", "below")),
        "threshold": threshold,
        "leaves": rng.random() < 0.5,
    }
    fitting = [value for value in far if leads_out(level | {"value": value}) == leaves_here]
    return level | {"value": rng.choice(fitting)}


def holds(level: Mapping[str, Any]) -> bool:
    """Whether a condition holds."""
    value, threshold = int(level["value"]), int(level["threshold"])
    return value > threshold if level["when"] == "above" else value < threshold


def leads_out(level: Mapping[str, Any]) -> bool:
    """Whether a condition leads to its outcome rather than on."""
    return holds(level) == bool(level["leaves"])


def _targets(
    ruling: Ruling, levels: Sequence[Any], quantities: Sequence[str], orders: Sequence[str], i: int
) -> tuple[str, str]:
    """Where condition i leads if it holds, and where otherwise."""
    is_last = i + 1 == len(levels)
    on = orders[i + 1] if is_last else ruling.go_on.format(q=quantities[i + 1])
    return (orders[i], on) if levels[i]["leaves"] else (on, orders[i])


def _rules(
    ruling: Ruling, levels: Sequence[Any], quantities: Sequence[str], orders: Sequence[str]
) -> list[str]:
    rules = []
    for i, level in enumerate(levels):
        then, other = _targets(ruling, levels, quantities, orders, i)
        rules.append(
            (ruling.later if i else ruling.first).format(
                q=quantities[i], when=level["when"], t=level["threshold"], then=then, other=other
            )
        )
    return rules


def _steps(
    ruling: Ruling, levels: Sequence[Any], quantities: Sequence[str], orders: Sequence[str]
) -> list[str]:
    steps = []
    for i, level in enumerate(levels):
        then, other = _targets(ruling, levels, quantities, orders, i)
        compared = f"{'' if holds(level) else 'not '}{level['when']} {level['threshold']}"
        order = then if holds(level) else other
        steps.append(f"{quantities[i]} is {level['value']}, {compared}, so {order}")
        if leads_out(level):
            break
    return steps
