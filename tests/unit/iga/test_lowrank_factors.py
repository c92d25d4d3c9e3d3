"""A low-rank gradient on its two ways to the LoRA factors: chain rule and retraction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.iga.adapters import Factors
from poise.iga.weight_space import LowRank, chain_rule, retract, truncated_svd

from .matrices import normal, quick


def _factors(rows: int = 8, columns: int = 6, rank: int = 3) -> Factors:
    return Factors(normal(rank, columns, seed=5), normal(rows, rank, seed=6))


@pytest.mark.parametrize("is_low_rank", [True, False])
def test_the_chain_rule_is_autograds(is_low_rank: bool) -> None:
    factors = Factors(*(f.requires_grad_() for f in _factors()))
    gradient = truncated_svd(normal(8, 6), 2)
    weight = normal(8, 6, seed=3) + 0.5 * factors.up @ factors.down
    (weight * gradient.matrix()).sum().backward()
    given = gradient if is_low_rank else gradient.matrix()
    found = chain_rule(given, Factors(*(f.detach() for f in factors)), 0.5)
    for one, factor in zip(found, factors, strict=True):
        torch.testing.assert_close(one, factor.grad)


@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    rank=st.integers(1, 10),
    rank_of_step=st.integers(1, 10),
    step=st.sampled_from([1e-4, 0.1, 10.0]),
)
@quick
def test_the_retraction_is_the_truncated_svd_of_the_step(
    rows: int, columns: int, rank: int, rank_of_step: int, step: float
) -> None:
    """Also with factors that are wider than the matrix has rank."""
    factors = _factors(rows, columns, rank)
    gradient = truncated_svd(normal(rows, columns), rank_of_step)
    down, up = retract(gradient, factors, 2.0, step)
    moved = factors.up @ factors.down - step / 2.0 * gradient.matrix()
    assert (down.shape, up.shape) == (factors.down.shape, factors.up.shape)
    torch.testing.assert_close(up @ down, truncated_svd(moved, rank).matrix())
    torch.testing.assert_close(up.T @ up, down @ down.T)  # balanced


def test_the_retraction_starts_from_a_factor_of_zeros() -> None:
    """As LoRA does."""
    factors = _factors()._replace(up=torch.zeros(8, 3, dtype=torch.float64))
    gradient = truncated_svd(normal(8, 6), 3)
    down, up = retract(gradient, factors, 2.0, 0.1)
    torch.testing.assert_close(up @ down, -0.05 * gradient.matrix())


@pytest.mark.parametrize("step", [1e-3, 1e-4, 1e-5])
def test_to_first_order_the_retraction_moves_along_the_tangent_space(step: float) -> None:
    """d(BA) = -(step / s) (U U'P + P V V' - U U'P V V'); the error is of second order."""
    factors, gradient = _factors(), truncated_svd(normal(8, 6), 3)
    before, dense = factors.up @ factors.down, gradient.matrix()
    basis, turn = (torch.linalg.qr(m)[0] for m in (factors.up, factors.down.T))
    left, right = basis @ basis.T, turn @ turn.T
    tangent = left @ dense + dense @ right - left @ dense @ right
    down, up = retract(gradient, factors, 2.0, step)
    error = (up @ down - before + step / 2.0 * tangent).norm() / dense.norm()
    assert error < 2 * step**2
    assert (dense - tangent).norm() > 0.1  # the whole gradient is not what it moves along


def test_the_retraction_is_no_multiple_of_the_chain_rules_step() -> None:
    """The chain rule moves BA along B B'P + P A'A: each direction by the factors' own size."""
    factors, gradient = _factors(), truncated_svd(normal(8, 6), 3)
    step = 1e-6
    change = Factors(*(-step * g for g in chain_rule(gradient, factors, 1.0)))
    chained = (factors.up + change.up) @ (factors.down + change.down) - factors.up @ factors.down
    down, up = retract(gradient, factors, 1.0, step)
    retracted = up @ down - factors.up @ factors.down
    assert torch.cosine_similarity(chained.flatten(), retracted.flatten(), 0) < 0.999


@pytest.mark.parametrize("step", [1e-2, 1e-4])
def test_a_small_step_moves_balanced_factors_little(step: float) -> None:
    gradient = truncated_svd(normal(8, 6), 3)
    balanced = retract(gradient, _factors(), 1.0, 1e-12)
    after = retract(gradient, balanced, 1.0, step)
    for old, new in zip(balanced, after, strict=True):
        assert (new - old).norm() < 3 * step


def test_no_step_leaves_the_product() -> None:
    factors = _factors()
    zero = LowRank(torch.zeros(8, 2).double(), torch.zeros(2, 6).double())
    down, up = retract(zero, factors, 2.0, 0.1)
    torch.testing.assert_close(up @ down, factors.up @ factors.down)
