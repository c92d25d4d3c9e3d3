"""The conflict mask: its formula, and what every scale of it promises."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from poise.iga.mask import SCALES, ConflictMask, Moments, domain_moments

every_scale = pytest.mark.parametrize("scale", SCALES)
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
quick = settings(deadline=None, max_examples=40)
taus = st.sampled_from([0.0, 1e-3, 1.0, 30.0]) | st.floats(0, 100)


@st.composite
def domains(draw: Any, fewest: int = 1) -> tuple[Tensor, Tensor]:
    """(K, rows, columns) gradients in float64 with zeros and outliers, and (K,) weights."""
    number, rows, columns = (draw(st.integers(low, 5)) for low in (fewest, 1, 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    normal = torch.randn(number, rows, columns, generator=generator, dtype=torch.float64)
    normal *= 10.0 ** draw(st.integers(-6, 3))
    normal *= torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.5, 1.0]))
    normal[:, 0, 0] *= draw(st.sampled_from([0.0, 1.0, 1e4]))
    normal[0] *= draw(st.sampled_from([0.0, 1.0]))
    if draw(st.booleans()):
        return normal, torch.full((number,), 1 / number, dtype=torch.float64)
    weights = torch.rand(number, generator=generator, dtype=torch.float64) + 0.1
    return normal, weights / weights.sum()


def _is_one(mask: Tensor, gradients: Tensor, scale: Any, tau: float) -> bool:
    """Whether a mask is 1 but for rounding.

    The mean of K equal numbers g is g within (K + 2) eps |g|, which leaves that much of a variance.
    """
    eps = torch.finfo(mask.dtype).eps
    mean = gradients.mean(0).square()
    unit = {"none": 1.0, "layer": eps * mean.mean(), "snr": mean}[scale]
    left = (eps * (len(gradients) + 2)) ** 2 * mean / (unit + torch.finfo(mask.dtype).tiny)
    return bool((mask >= torch.exp(-tau * left) - 2 * eps).all())


def _mask(scale: Any, gradients: Tensor, weights: Tensor, tau: float) -> Tensor:
    return ConflictMask(scale)(domain_moments(gradients, weights), tau)


# The formula


def test_moments_are_the_weighted_mean_and_the_biased_variance() -> None:
    gradients = torch.randn(4, 3, 5, dtype=torch.float64)
    mean, variance = domain_moments(gradients[[0, 1, 2]], [0.5, 0.25, 0.25])
    repeated = gradients[[0, 0, 1, 2]]
    torch.testing.assert_close(mean, repeated.mean(0))
    torch.testing.assert_close(variance, repeated.var(0, correction=0))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [math.exp(-0.5 * 1), math.exp(-0.5 * 3)]),
        ("layer", [math.exp(-0.5 * 1 / 2), math.exp(-0.5 * 3 / 2)]),
        ("snr", [math.exp(-0.5 / (4 + 1e-3 * 2)), math.exp(-0.5 * 3 / (1e-3 * 2))]),
    ],
)
def test_the_mask_is_the_exponential_of_the_scaled_variance(
    scale: Any, expected: list[float]
) -> None:
    moments = Moments(torch.tensor([2.0, 0.0]).double(), torch.tensor([1.0, 3.0]).double())
    found = ConflictMask(scale, eps=1e-3)(moments, tau=0.5)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


# What every scale promises


@every_scale
@every_dtype
@given(case=domains(), tau=taus)
@quick
def test_the_mask_is_above_zero_and_at_most_one(
    scale: Any, dtype: torch.dtype, case: tuple[Tensor, Tensor], tau: float
) -> None:
    found = _mask(scale, case[0].to(dtype), case[1], tau)
    assert found.dtype == dtype
    assert found.shape == case[0].shape[1:]
    assert bool(((found > 0) & (found <= 1)).all())


@every_scale
@every_dtype
@given(case=domains(fewest=2), tau=taus)
@quick
def test_the_mask_is_one_on_the_elements_on_which_domains_agree(
    scale: Any, dtype: torch.dtype, case: tuple[Tensor, Tensor], tau: float
) -> None:
    gradients, weights = case[0].to(dtype), case[1]
    gradients[:, :, 0] = gradients[0, :, 0]
    found = _mask(scale, gradients, weights, tau)
    assert _is_one(found[:, :1], gradients[:, :, :1], scale, tau)


@pytest.mark.parametrize("scale", ["layer", "snr"])
@every_dtype
@given(case=domains(), tau=taus, power=st.integers(-20, 20))
@quick
def test_a_common_factor_does_not_matter_where_there_is_a_scale(
    scale: Any, dtype: torch.dtype, case: tuple[Tensor, Tensor], tau: float, power: int
) -> None:
    """Powers of two leave no rounding: equal bit for bit, unless squares leave float32's range."""
    gradients, weights = case[0].to(dtype), case[1]
    found = _mask(scale, gradients * 2.0**power, weights, tau)
    torch.testing.assert_close(found, _mask(scale, gradients, weights, tau), rtol=0, atol=1e-6)


@every_scale
@every_dtype
@pytest.mark.parametrize("number", [1, 3])
def test_gradients_of_zero_have_a_mask_of_ones(scale: Any, dtype: torch.dtype, number: int) -> None:
    zeros = torch.zeros(number, 4, 3, dtype=dtype)
    assert bool((_mask(scale, zeros, torch.full((number,), 1 / number), 1e6) == 1).all())


@every_scale
def test_more_temperature_suppresses_more(scale: Any) -> None:
    gradients, weights = torch.randn(4, 6, 5), torch.full((4,), 0.25)
    masks = [_mask(scale, gradients, weights, tau) for tau in (0.0, 0.1, 1.0, 10.0)]
    assert bool((masks[0] == 1).all())
    assert all(bool((b <= a).all()) and b.mean() < a.mean() for a, b in pairwise(masks))


@every_scale
def test_a_mask_that_underflows_stays_above_zero(scale: Any) -> None:
    gradients = torch.tensor([[1e3, 1.0], [-1e3, 1.0]])
    found = _mask(scale, gradients, torch.tensor([0.5, 0.5]), 1e9)
    assert 0 < found[0] < 2 * torch.finfo(torch.float32).eps
    assert found[1] == 1


@pytest.mark.parametrize("tau", [-1.0, math.nan])
def test_a_temperature_outside_its_range_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau: expected a number of 0 or more"):
        ConflictMask()(Moments(torch.ones(2), torch.ones(2)), tau)
