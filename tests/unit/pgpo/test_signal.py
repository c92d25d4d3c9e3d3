"""The information signal: its estimators, its mean, and how it adds up."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from poise.pgpo.signal import ESTIMATORS, SignalSum, information_sum, token_information


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
    information = token_information(estimator, _statistics())  # type: ignore[arg-type]
    assert information.tolist() == expected


def test_the_cases_above_are_all_the_estimators() -> None:
    assert ESTIMATORS == ("entropy", "kl", "pointwise")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_gradient_flows_through_the_signal(estimator: str) -> None:
    statistics = _statistics()
    for tensor in vars(statistics).values():
        tensor.requires_grad_()
    assert not token_information(estimator, statistics).requires_grad  # type: ignore[arg-type]


def test_the_signal_of_real_distributions_is_the_entropy_that_the_hint_removes() -> None:
    student = torch.full((1, 1, 8), 1 / 8, dtype=torch.float64)
    teacher = torch.tensor([[[0.5, 0.5, 0, 0, 0, 0, 0, 0]]], dtype=torch.float64)
    statistics = Statistics(
        student_entropy=torch.special.entr(student).sum(-1),
        teacher_entropy=torch.special.entr(teacher).sum(-1),
        kl=torch.zeros(1, 1),
        student_logps=torch.zeros(1, 1),
        teacher_logps=torch.zeros(1, 1),
    )
    nats = token_information("entropy", statistics).item()
    assert nats == pytest.approx(2.0794415416798357 - 0.6931471805599453, rel=1e-15)


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


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 4)])
def test_nothing_kept_is_zero_of_zero(shape: tuple[int, int]) -> None:
    total, count = information_sum(torch.full(shape, 7.0), torch.zeros(shape))
    assert (total.item(), count.item()) == (0.0, 0.0)


@pytest.mark.parametrize("rubbish", [float("nan"), float("inf"), -float("inf")])
def test_masked_positions_may_hold_anything(rubbish: float) -> None:
    information = torch.tensor([[2.0, rubbish], [rubbish, rubbish]])
    total, count = information_sum(information, torch.tensor([[1, 0], [0, 0]]))
    assert (total.item(), count.item()) == (2.0, 1.0)


def test_a_kept_position_that_is_not_finite_shows() -> None:
    total, _ = information_sum(torch.tensor([[float("nan"), 1.0]]), torch.ones(1, 2))
    assert total.isnan()


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32, torch.bfloat16])
def test_the_mask_may_have_any_type(dtype: torch.dtype) -> None:
    mask = torch.tensor([[1, 0, 1]]).to(dtype)
    assert information_sum(torch.tensor([[1.0, 9.0, 4.0]]), mask).total.item() == 2.5


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


def test_eight_micro_batches_of_one_are_one_of_eight() -> None:
    generator = torch.Generator().manual_seed(0)
    information = torch.randn(8, 13, dtype=torch.float64, generator=generator)
    mask = torch.rand(8, 13, generator=generator) < 0.6
    mask[3] = False
    whole = information_sum(information, mask)
    parts = [information_sum(information[i : i + 1], mask[i : i + 1]) for i in range(8)]
    assert sum(part.sequences.item() for part in parts) == whole.sequences.item() == 7
    total = sum(part.total.item() for part in parts)
    assert total == pytest.approx(whole.total.item(), rel=0, abs=1e-12)


def test_padding_does_not_change_the_sum() -> None:
    information = torch.randn(2, 5, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    padded = torch.nn.functional.pad(information, (0, 4), value=float("nan"))
    expected = information_sum(information, mask).total.item()
    found = information_sum(padded, torch.nn.functional.pad(mask, (0, 4))).total.item()
    assert found == pytest.approx(expected, abs=1e-12)


def test_different_shapes_are_refused_and_named() -> None:
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\) and \(2, 1\)"):
        information_sum(torch.zeros(2, 3), torch.zeros(2, 1))
