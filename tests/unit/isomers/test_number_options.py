"""The numbers of the options alone do not tell which one is right, in any family and depth.

In `DRAWS` problems a way to be right five points above chance shows: its property is five
standard deviations off or more, see the test of a planted one. The options of `branching`,
`ordering` and the others are names.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import numpy as np
import pytest

from poise.isomers.families import FAMILIES
from poise.isomers.families.number_options import Draft, draw_form

from .number_ranker import held_out_choices, oddness, properties

DRAWS = 2400
CASES = [
    pytest.param(name, depth, id=f"{name}-{depth}", marks=() if depth == 1 else pytest.mark.slow)
    for name in ("rates", "two_unknowns", "counting", "state_changes")
    for depth in FAMILIES[name].depths
]
CHANCE = 0.25
ODDEST = 4.2  # standard deviations, the most of 35 properties in 17 cases
BEST = CHANCE + 2.8 * (CHANCE * (1 - CHANCE) / DRAWS) ** 0.5  # 27.5 %


@cache
def drawn(name: str, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """Options, (problems, 4), and the places of the right ones."""
    rng, forms = random.Random(f"{name} {depth}"), []
    while len(forms) < DRAWS:
        form = FAMILIES[name].draw(rng, depth)
        forms += [form] * form.answer.isdigit()
    options = np.array([[int(option) for option in form.options] for form in forms])
    return options, np.array([form.options.index(form.answer) for form in forms])


def look(options: np.ndarray, right: np.ndarray) -> tuple[float, float, str]:
    """Share of right guesses, and the oddest property."""
    found = properties(options)
    hits = held_out_choices(np.stack(list(found.values()), axis=2), right)
    odd = {name: abs(oddness(values, right)) for name, values in found.items()}
    worst = max(odd, key=odd.__getitem__)
    return float(hits.mean()), odd[worst], worst


@pytest.mark.parametrize(("name", "depth"), CASES)
def test_the_numbers_alone_do_not_tell_the_answer(name: str, depth: int) -> None:
    share, odd, worst = look(*drawn(name, depth))
    print(f"{name} {depth}: {share:.1%} guessed, oddest {worst!r} by {odd:.1f} deviations")
    assert share < BEST
    assert odd < ODDEST


@pytest.mark.parametrize("shortcut", ["rank 0", "central"])
def test_a_planted_shortcut_of_five_points_is_found(shortcut: str) -> None:
    options, right = drawn("state_changes", 2)
    noise = np.random.default_rng(0).random(options.shape)
    guesses = (properties(options)[shortcut] + 1e-6 * noise).argmax(1)
    wrong = np.flatnonzero(guesses != right)
    lacking = int((CHANCE + 0.05) * len(right)) - (len(right) - len(wrong))
    planted = right.copy()
    planted[wrong[:lacking]] = guesses[wrong[:lacking]]
    assert abs((guesses == planted).mean() - 0.3) < 1e-3
    share, odd, _ = look(options, planted)
    assert share > BEST or odd > ODDEST


def test_attempts_that_never_work_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="dull: no form of depth 1"):
        draw_form(random.Random(0), "dull", 1, lambda rng: None)


def test_an_answer_that_the_facts_state_is_drawn_again() -> None:
    drafts = iter([Draft({}, 7, {7})] * 3 + [Draft({}, n, {7}) for n in (9, 7, 10, 11, 11, 12)])
    form = draw_form(random.Random(0), "some", 1, lambda rng: next(drafts))
    assert sorted(form.options, key=int) == ["9", "10", "11", "12"]


def test_options_are_answers_that_any_of_the_problems_could_have() -> None:
    fit = [Draft({"n": n}, n, {20 - n}, below=20) for n in (8, 9, 13, 14)]
    # Too far, stated by the first, the first once more, and one that states the first.
    unfit = [Draft({}, n, given) for n, given in ((20, ()), (12, ()), (8, ()), (15, {8}))]
    told = Counter()
    for seed in range(400):
        drafts = iter([fit[0], *unfit, *fit[1:]])
        form = draw_form(random.Random(seed), "some", 1, lambda rng, left=drafts: next(left))
        assert set(form.options) == {"8", "9", "13", "14"}
        assert form.data == {"n": int(form.answer)}
        told[form.answer] += 1
    assert all(60 < count < 140 for count in told.values()) and len(told) == 4, told
