"""A low-rank gradient on its two ways to the LoRA factors: chain rule and retraction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.iga.adapters import Factors
from poise.iga.weight_space import chain_rule, retract, truncated_svd

from .matrices import normal, quick


def _factors(rows: int = 8, columns: int = 6, rank: int = 3) -> Factors:
    return Factors(normal(rank, columns, seed=5), normal(rows, rank, seed=6))


@pytest.mark.parametrize("is_low_rank", [True, False])
def test_the_chain_rule_is_autograds(is_low_rank: bool) -> None:
    factors = Factors(*(f.requires_grad_() for f in _factors()))
    gradient = truncated_svd(normal(8, 6), 2)
    dense = gradient.left @ gradient.right
    weight = normal(8, 6, seed=3) + 0.5 * factors.up @ factors.down
    (weight * dense).sum().backward()
    given = gradient if is_low_rank else dense
    found = chain_rule(given, Factors(*(f.detach() for f in factors)), 0.5)
    for one, factor in zip(found, factors, strict=True):
        torch.testing.assert_close(one, factor.grad)


@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    rank=st.integers(1, 10),
    is_zero=st.booleans(),
    rank_of_step=st.integers(1, 10),
    step=st.sampled_from([1e-4, 0.1, 10.0]),
)
@quick
def test_the_retraction_is_the_truncated_svd_of_the_step(
    rows: int, columns: int, rank: int, is_zero: bool, rank_of_step: int, step: float
) -> None:
    """Also of factors that are wider than the matrix has rank, and of zeros, as LoRA's B is."""
    factors = _factors(rows, columns, rank)
    factors = factors._replace(up=factors.up * (not is_zero))
    gradient = truncated_svd(normal(rows, columns), rank_of_step)
    down, up = retract(gradient, factors, 2.0, step)
    moved = factors.up @ factors.down - step / 2.0 * gradient.left @ gradient.right
    left, right = truncated_svd(moved, rank)
    assert (down.shape, up.shape) == (factors.down.shape, factors.up.shape)
    torch.testing.assert_close(up @ down, left @ right)
    torch.testing.assert_close(up.T @ up, down @ down.T)  # balanced


@pytest.mark.parametrize("step", [1e-3, 1e-5])
def test_to_first_order_the_retraction_moves_along_the_tangent_space(step: float) -> None:
    """d(BA) = -(step / s) (U U'P + P V V' - U U'P V V'); the error is of second order."""
    factors, gradient = _factors(), truncated_svd(normal(8, 6), 3)
    before, dense = factors.up @ factors.down, gradient.left @ gradient.right
    basis, turn = (torch.linalg.qr(m)[0] for m in (factors.up, factors.down.T))
    left, right = basis @ basis.T, turn @ turn.T
    tangent = left @ dense + dense @ right - left @ dense @ right
    down, up = retract(gradient, factors, 2.0, step)
    error = (up @ down - before + step / 2.0 * tangent).norm() / dense.norm()
    assert error < 2 * step**2
    assert (dense - tangent).norm() > 0.1  # the whole gradient is not what it moves along


@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_a_small_step_moves_balanced_factors_little(step: float) -> None:
    gradient = truncated_svd(normal(8, 6), 3)
    balanced = retract(gradient, _factors(), 1.0, 1e-12)
    after = retract(gradient, balanced, 1.0, step)
    for old, new in zip(balanced, after, strict=True):
        assert (new - old).norm() < 3 * step
