"""Branches over thresholds: if one value is above t, do this; otherwise look at the next value.

Depth d nests d + 1 conditions. Each leads to an outcome on one side and to the next condition on
the other; the last leads to outcomes on both. The outcome that is reached is drawn evenly, so
the text has values that turn out not to matter.

``data``: ``levels``, each with ``value``, ``threshold``, ``when`` (``"above"`` or
``"below"``) and ``leaves`` (whether the condition leads out if it holds, or if it does not);
``told``, the order of the values in the text. Outcome i leaves level i; the last outcome is
where the last condition leads otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..forms import Family, Form, Story
from .words import read_words, sentence

LOWEST, HIGHEST, NEAREST = 11, 95, 3
MOST_OPTIONS = 4


def _draw(rng: random.Random, depth: int) -> Form:
    """Random conditions with a random outcome."""
    count = depth + 1
    answer = rng.randrange(count + 1)
    levels = [_level(rng, rng.random() < 0.5 if i > answer else i == answer) for i in range(count)]
    others = [outcome for outcome in range(count + 1) if outcome != answer]
    others = rng.sample(others, min(len(others), MOST_OPTIONS - 1))
    data = {"levels": levels, "told": rng.sample(range(count), count)}
    options = tuple(f"e{outcome}" for outcome in sorted([answer, *others]))
    return Form("branching", depth, data, f"e{answer}", options)


def _render(form: Form, domain: str, phrasing: int, rng: random.Random) -> Story:
    """Reasoning: each condition that is reached, and where it leads."""
    words, levels = read_words("branching")[domain][phrasing], form.data["levels"]
    outcomes = rng.sample(read_words("names", "choices")[domain], len(levels) + 1)
    quantities = rng.sample(words["quantities"], len(levels))
    orders = [words["do"].format(x=outcome) for outcome in outcomes]
    on = [words["go_on"].format(q=quantity) for quantity in quantities[1:]] + orders[-1:]
    facts = [
        words["value"].format(q=quantities[i], v=levels[i]["value"]) for i in form.data["told"]
    ]
    steps, reached = [], True
    for i, (level, quantity) in enumerate(zip(levels, quantities, strict=True)):
        when, threshold = level["when"], level["threshold"]
        then, other = (orders[i], on[i]) if level["leaves"] else (on[i], orders[i])
        rule = {"q": quantity, "when": when, "t": threshold, "arrived": words["arrived"]}
        facts.append(words["later" if i else "first"].format(then=then, other=other, **rule))
        if reached:
            is_not, order = ("", then) if _holds(level) else ("not ", other)
            steps.append(f"{quantity} is {level['value']}, {is_not}{when} {threshold}, so {order}")
        reached = reached and not _leads_out(level)
    return Story([*map(sentence, facts)], words["question"], [*map(sentence, steps)], outcomes)


def _level(rng: random.Random, leaves_here: bool) -> dict[str, Any]:
    """A condition that leads out, or on."""
    threshold = 5 * rng.randrange(LOWEST // 5 + 1, HIGHEST // 5)
    far = [v for v in range(LOWEST, HIGHEST + 1) if abs(v - threshold) >= NEAREST]
    level = {"when": rng.choice(("above", "below")), "threshold": threshold}
    level["leaves"] = rng.random() < 0.5
    fitting = [value for value in far if _leads_out(level | {"value": value}) == leaves_here]
    return level | {"value": rng.choice(fitting)}


def _holds(level: Mapping[str, Any]) -> bool:
    return bool((level["value"] > level["threshold"]) == (level["when"] == "above"))


def _leads_out(level: Mapping[str, Any]) -> bool:
    """Whether a condition leads to its outcome rather than on."""
    return _holds(level) == bool(level["leaves"])


FAMILY = Family("branching", _draw, _render)
