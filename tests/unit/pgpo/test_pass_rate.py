"""Weights by pass rate against the standard deviation of a question's outcomes."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.pgpo.rollouts import pass_rate_weights

ROWS = st.integers(1, 5).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(
            st.lists(st.tuples(st.booleans(), st.booleans()), min_size=size, max_size=size),
            min_size=1,
            max_size=6,
        ),
    )
)


@given(ROWS)
def test_a_weight_is_the_spread_of_the_questions_outcomes_over_its_mean(
    drawn: tuple[int, list[list[tuple[bool, bool]]]],
) -> None:
    size, groups = drawn
    spreads = [
        # The standard deviation of zeros and ones is sqrt(p (1 - p)).
        statistics.pstdev([float(success) for success, _ in group]) * distilled
        for group in groups
        for _, distilled in group
    ]
    counted = [s for s in spreads if s > 0]
    mean = statistics.fmean(counted) if counted else 1.0
    rows = [row for group in groups for row in group]
    weights = pass_rate_weights(
        torch.tensor([success for success, _ in rows]),
        torch.tensor([float(distilled) for _, distilled in rows]),
        size,
    )
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([s / mean for s in spreads], rel=1e-5)


@pytest.mark.parametrize(
    ("successes", "distilled", "message"),
    [
        (torch.ones(4) > 0, torch.ones(3), "vectors of one length"),
        (torch.ones(2, 2) > 0, torch.ones(2, 2), "vectors of one length"),
        (torch.ones(4) > 0, torch.ones(4), "whole groups of 3"),
    ],
)
def test_what_is_no_batch_of_groups_is_refused(
    successes: torch.Tensor, distilled: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pass_rate_weights(successes, distilled, 3)


def test_a_rate_is_of_the_known_outcomes() -> None:
    successes = torch.tensor([True, False, True, False, True, True, False, False])
    known = torch.tensor([True, True, False, True, True, True, False, False])
    weights = pass_rate_weights(successes, torch.ones(8), 4, known)
    assert weights.tolist() == pytest.approx([1.0] * 4 + [0.0] * 4)  # 1 of 3, and 2 of 2
    third = pass_rate_weights(successes[:4], torch.tensor([1, 0, 1, 0]), 4, known[:4])
    assert third.tolist() == pytest.approx([1.0, 0.0, 1.0, 0.0])  # unscored ones learn as well
    assert not pass_rate_weights(successes, torch.ones(8), 4, torch.zeros(8, dtype=bool)).any()
