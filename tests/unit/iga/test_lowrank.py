"""The low-rank projection: exact and randomised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from poise.iga.weight_space import LowRank, random_start, randomized_svd, truncated_svd

from .matrices import normal, quick

SPECTRA = {
    "flat": torch.ones(40),
    "one over i": 1 / torch.arange(1, 41),
    "exponential": 0.8 ** torch.arange(40.0),
    "a step": torch.cat([torch.ones(6), torch.full((34,), 1e-3)]),
}


def _with_spectrum(values: Tensor, rows: int = 60, columns: int = 50, seed: int = 0) -> Tensor:
    left, right = (
        torch.linalg.qr(normal(n, len(values), seed=seed + n))[0] for n in (rows, columns)
    )
    return left @ (values.double()[:, None] * right.T)


def _error(matrix: Tensor, found: LowRank) -> float:
    return float((matrix - found.left @ found.right).norm())


def _best_error(matrix: Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(matrix)[rank:].norm())


@st.composite
def matrices(draw: Any) -> tuple[Tensor, int]:
    """A matrix of any rank, zeros among them, and the rank of a projection."""
    rows, columns, inner = (draw(st.integers(low, 9)) for low in (1, 1, 0))
    seed = draw(st.integers(0, 2**31))
    matrix = normal(rows, inner, seed=seed) @ normal(inner, columns, seed=seed + 1)
    return matrix * 10.0 ** draw(st.integers(-8, 4)), draw(st.integers(1, 12))


def _projections(matrix: Tensor, rank: int) -> list[LowRank]:
    width = min(rank + 4, *matrix.shape)
    start = random_start(matrix.shape[1], width, 0, matrix)
    return [truncated_svd(matrix, rank), randomized_svd(matrix, rank, start, 2)[0]]


# Both projections


@given(case=matrices())
@quick
def test_a_projection_has_a_rank_orthonormal_columns_and_a_share_of_the_energy(
    case: tuple[Tensor, int],
) -> None:
    matrix, rank = case
    energy, clipped = matrix.square().sum(), min(rank, *matrix.shape)
    for left, right in _projections(matrix, rank):
        assert left.shape == (matrix.shape[0], clipped)
        assert right.shape == (clipped, matrix.shape[1])
        torch.testing.assert_close(left.T @ left, torch.eye(clipped, dtype=torch.float64))
        kept, lost = right.square().sum(), (matrix - left @ right).square().sum()
        assert 0 <= kept <= energy * (1 + 1e-12)
        torch.testing.assert_close(kept + lost, energy, rtol=1e-9, atol=0)
        for again in _projections(left @ right, rank):  # idempotent
            assert _error(left @ right, again) <= 1e-9 * float(matrix.norm())


# The randomised one


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("rank", "oversampling"), [(4, 2), (4, 8), (8, 4)])
def test_the_error_is_within_the_bound_on_average(
    spectrum: str, rank: int, oversampling: int
) -> None:
    matrix = _with_spectrum(SPECTRA[spectrum])
    starts = [random_start(50, rank + oversampling, seed, matrix) for seed in range(40)]
    errors = [_error(matrix, randomized_svd(matrix, rank, start)[0]) for start in starts]
    bound = (1 + rank / (oversampling - 1)) ** 0.5 * _best_error(matrix, rank)
    assert sum(errors) / len(errors) <= bound
    assert min(errors) >= _best_error(matrix, rank) * (1 - 1e-12)


@pytest.mark.parametrize("true_rank", [0, 1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_of_low_rank_comes_back_up_to_rounding(true_rank: int, dtype: Any) -> None:
    matrix = (normal(40, true_rank) @ normal(true_rank, 30, seed=1)).to(dtype)
    start = random_start(30, 9, 0, matrix)
    for _ in range(4):  # later ones start from a space that is larger than the matrix's
        found, start = randomized_svd(matrix, 5, start)
        assert _error(matrix, found) <= 50 * torch.finfo(dtype).eps * float(matrix.norm())
        assert bool(start.isfinite().all())


@pytest.mark.parametrize("spectrum", ["one over i", "exponential"])
def test_each_warm_start_improves_on_the_one_before(spectrum: str) -> None:
    matrix = _with_spectrum(SPECTRA[spectrum])
    best, start, excesses = _best_error(matrix, 4), random_start(50, 6, 0, matrix), []
    for _ in range(12):
        found, start = randomized_svd(matrix, 4, start)
        excesses.append(_error(matrix, found) / best - 1)
    assert excesses == sorted(excesses, reverse=True)
    assert excesses[0] > 1e-2
    assert excesses[-1] < 1e-4


@pytest.mark.parametrize("interlude", [0, 2])
def test_a_warm_start_survives_a_matrix_of_lower_rank(interlude: int) -> None:
    """A layer may be without gradient, or see few tokens, for a step."""
    matrix = _with_spectrum(torch.cat([torch.ones(4), torch.full((36,), 1e-4)])).float()
    low = (normal(60, interlude) @ normal(interlude, 50, seed=1)).float()
    _, start = randomized_svd(low, 4, random_start(50, 8, 0, matrix))
    found, _ = randomized_svd(matrix, 4, start)
    assert _error(matrix, found) < 0.1


def test_what_is_no_number_is_said_or_leaves_the_start_usable() -> None:
    broken = torch.full((6, 5), torch.nan)
    start = random_start(5, 4, 0, broken)
    with pytest.raises(torch.linalg.LinAlgError):
        randomized_svd(broken, 2, start)
    assert bool(start.isfinite().all())


def test_random_starts_are_of_their_seed_and_move_no_other_random_number() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (random_start(5, 3, seed, normal(1)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.dtype == torch.float64
