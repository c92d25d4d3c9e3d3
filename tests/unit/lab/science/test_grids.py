"""The grid of options."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.science.grids import Differences, Odds, Ratios, grid

SCALES = {
    "ratios": Ratios(),
    "odds": Odds(100),
    "differences": Differences(1 / 3, 14),
}


def accept_all(values: list[float]) -> bool:
    return True


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
@given(
    value=st.fractions(4, 10), wrong=st.lists(st.fractions(1, 13), max_size=4), seed=st.integers()
)
@settings(max_examples=50, deadline=None)
def test_the_options_form_a_grid_with_the_right_value_at_a_corner(scale, value, wrong, seed):
    values = grid(Random(str(seed)), value, wrong, scale, accept_all, accept_all)
    right, first, second, both = values
    assert right == value
    assert scale.step(right, first) == pytest.approx(scale.step(second, both))
    assert scale.step(right, second) == pytest.approx(scale.step(first, both))
    assert all(scale.holds(v) for v in values)
    assert all(scale.apart(a, b) for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_a_step_back_undoes_a_step(scale):
    step = scale.step(3, 5)
    assert scale.apply(3, step) == pytest.approx(5)
    assert scale.apply(5, scale.back(step)) == pytest.approx(3)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_every_rank_is_drawn(scale):
    ranks = Counter()
    for seed in range(400):
        values = grid(Random(seed), 7, [9], scale, accept_all, accept_all)
        ranks[sorted(values).index(values[0])] += 1
    assert set(ranks) == {0, 1, 2, 3} and min(ranks.values()) > 60


def test_typical_mistakes_are_among_the_options():
    hits = sum(
        10 in grid(Random(seed), 7, [10], Ratios(), accept_all, accept_all) for seed in range(200)
    )
    assert hits > 60


def test_an_impossible_grid_says_so():
    with pytest.raises(ValueError, match=r"no grid of options fits around 7 with"):
        grid(Random(0), 7, [], Ratios(), lambda values: False, accept_all)


def test_a_preference_is_kept_where_it_can_be():
    def narrow(values: list[float]) -> bool:
        return max(values) < 60 * min(values)

    for seed in range(50):
        values = grid(Random(seed), 7, [700], Ratios(), accept_all, narrow)
        assert narrow(values)
    assert len(grid(Random(0), 7, [], Ratios(), accept_all, lambda values: False)) == 4
