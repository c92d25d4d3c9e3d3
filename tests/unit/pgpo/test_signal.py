"""The information signal: its estimators, its mean, and how it adds up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from poise.pgpo.signal import SignalSum, information_sum, token_information


@dataclass
class Statistics:
    student_entropy: Tensor
    teacher_entropy: Tensor
    kl: Tensor
    student_logps: Tensor
    teacher_logps: Tensor


def _statistics() -> Statistics:
    """Two sequences of two tokens, with figures that are exact in binary."""
    return Statistics(
        student_entropy=torch.tensor([[2.0, 1.5], [0.5, 3.0]]),
        teacher_entropy=torch.tensor([[1.0, 1.75], [0.25, 0.0]]),
        kl=torch.tensor([[0.5, 0.0], [0.125, 4.0]]),
        student_logps=torch.tensor([[-1.0, -2.0], [-0.5, -8.0]]),
        teacher_logps=torch.tensor([[-0.5, -4.0], [-0.5, -2.0]]),
    )


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("entropy", [[1.0, -0.25], [0.25, 3.0]]),
        ("kl", [[0.5, 0.0], [0.125, 4.0]]),
        ("pointwise", [[0.5, -2.0], [0.0, 6.0]]),
    ],
)
def test_each_estimator_is_its_formula(estimator: str, expected: list[list[float]]) -> None:
    statistics = _statistics()
    for tensor in vars(statistics).values():
        tensor.requires_grad_()
    information = token_information(estimator, statistics)  # type: ignore[arg-type]
    assert information.tolist() == expected
    assert not information.requires_grad


def test_an_unknown_estimator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown signal estimator 'variance': use one of .*'kl'"):
        token_information("variance", _statistics())  # type: ignore[arg-type]


def test_the_sum_is_over_the_mean_of_each_sequence() -> None:
    information = torch.tensor([[1.0, 3.0, 100.0], [5.0, 7.0, 9.0], [11.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    # (1 + 3) / 2 + (5 + 7 + 9) / 3 + 11, not weighted by length.
    assert information_sum(information, mask) == SignalSum(torch.tensor(20.0), torch.tensor(3.0))


def test_a_sequence_without_a_kept_token_does_not_count() -> None:
    total, count = information_sum(torch.ones(3, 2), torch.tensor([[0, 0], [1, 0], [0, 0]]))
    assert (total.item(), count.item()) == (1.0, 1.0)
    assert information_sum(torch.ones(3, 0), torch.ones(3, 0)) == SignalSum(*torch.zeros(2))


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -float("inf")])
def test_masked_positions_may_hold_anything(rubbish: float) -> None:
    information = torch.tensor([[2.0, rubbish], [rubbish, rubbish]])
    total, count = information_sum(information, torch.tensor([[1, 0], [0, 0]]))
    assert (total.item(), count.item()) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("given", "summed"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sums_are_at_least_single_precision(given: torch.dtype, summed: torch.dtype) -> None:
    # 256 + 1 is 256 in bfloat16.
    result = information_sum(torch.tensor([[256.0, 1.0]], dtype=given), torch.ones(1, 2))
    assert result.total.dtype == result.sequences.dtype == summed
    assert result.total.item() == 128.5


def test_different_shapes_are_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\) and \(2, 1\)"):
        information_sum(torch.zeros(2, 3), torch.zeros(2, 1))
