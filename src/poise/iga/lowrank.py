"""Rank-r projection of a gradient, and its way to the LoRA factors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class LowRank(NamedTuple):
    """A matrix as a product, left @ right.

    Args:
        left: (out, r), orthonormal columns.
        right: (r, in).
    """

    left: Tensor
    right: Tensor

    def matrix(self) -> Tensor:
        """The (out, in) matrix itself."""
        return self.left @ self.right


def truncated_svd(matrix: Tensor, rank: int) -> LowRank:
    """The best approximation of a rank, by an exact singular value decomposition.

    Args:
        matrix: (out, in).
        rank: 1 or more; clipped to what the matrix has room for.

    Raises:
        ValueError: the rank is below 1.
    """
    rank = _clipped(matrix, rank)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return LowRank(left[:, :rank], values[:rank, None] * right[:rank])


def random_start(columns: int, width: int, seed: int, like: Tensor) -> Tensor:
    """A (columns, width) start for `randomized_svd`, of `like`'s dtype and device.

    Drawn from a generator of its own, so that no other random number moves.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(columns, width, generator=generator).to(like)


def randomized_svd(
    matrix: Tensor, rank: int, start: Tensor, iterations: int = 1
) -> tuple[LowRank, Tensor]:
    """Nearly the best approximation of a rank, by subspace iteration from a start.

    Y = M S; Q = orth(Y); P = Q trunc_r(Q^T M); each further iteration puts M^T Q in the place of S.
    Error: from a random start of width q = r + p with p >= 2, what Q misses after one iteration,
    |M - Q Q^T M| in the Frobenius norm, is expected to be at most sqrt(1 + r / (p - 1)) times the
    error of the best rank-r approximation. The theorem does not cover the truncation to r, further
    iterations and warm starts; measured on four spectra, the truncated mean error keeps the bound.
    A start from the call before saves an iteration where the matrix has changed little.

    Args:
        matrix: (out, in).
        rank: r, 1 or more; clipped to what the matrix has room for.
        start: (in, q), q at least the rank: `random_start`, or from the call before.
        iterations: 1 or more.

    Returns:
        The approximation, and the (in, q) start for the next call.

    Raises:
        ValueError: the rank or the iterations are below 1.

    Source: Halko, Martinsson, Tropp, Finding structure with randomness (2011), algorithms 4.4 and
    5.1, theorem 10.5.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected 1 or more, found {iterations}")
    rank, given = _clipped(matrix, rank), start
    for _ in range(iterations):
        basis = torch.linalg.qr(matrix @ start)[0]
        small = basis.T @ matrix
        start = small.T
    # Singular vectors of a small q x in matrix, from a q x q one.
    vectors = torch.linalg.eigh(small @ small.T)[1].flip(1)
    right = vectors.T @ small
    return LowRank(basis @ vectors[:, :rank], right[:rank]), _following(right, given).contiguous()


def _following(right: Tensor, given: Tensor) -> Tensor:
    """Directions of the rows of `right`; where they are rounding, or no number, the given start's.

    A matrix of a lower rank, or of zeros, would leave later ones a start that sees nothing.
    """
    lengths = torch.linalg.vector_norm(right, dim=1, keepdim=True)
    floor = lengths.max() * torch.finfo(right.dtype).eps * max(given.shape)
    return torch.where(lengths > floor, right / lengths, given.T[: len(right)]).T


def _clipped(matrix: Tensor, rank: int) -> int:
    if rank < 1:
        raise ValueError(f"rank: expected 1 or more, found {rank}")
    return min(rank, matrix.shape[0], matrix.shape[1])


class Factors(NamedTuple):
    """A pair of LoRA factors, or of their gradients.

    Args:
        down: A, (r, in).
        up: B, (out, r).
    """

    down: Tensor
    up: Tensor


def chain_rule(gradient: Tensor | LowRank, factors: Factors, scaling: float) -> Factors:
    """Gradients of the factors from that of the matrix W = W0 + s B A.

    dA = s B^T P; dB = s P A^T.

    Args:
        gradient: P, (out, in), or its low-rank form.
        factors: A and B.
        scaling: s.
    """
    down, up = factors
    if isinstance(gradient, LowRank):
        left, right = gradient
        return Factors(scaling * ((up.T @ left) @ right), scaling * (left @ (right @ down.T)))
    return Factors(scaling * (up.T @ gradient), scaling * (gradient @ down.T))


def retract(gradient: LowRank, factors: Factors, scaling: float, step: float) -> Factors:
    """New factors after a step along a low-rank gradient on the manifold of rank-r matrices.

    B' A' = trunc_r(B A - (step / s) P): the Riemannian form of the update W <- W - step * P.

    Args:
        gradient: P in low-rank form.
        factors: A and B, rank r.
        scaling: s of W = W0 + s B A.
        step: learning rate.

    Returns:
        A' and B'. Choice: of all pairs with this product, the balanced one (B'^T B' = A' A'^T) in
        the orientation that is nearest to the pair before (orthogonal Procrustes), so that a small
        step changes the factors little where they were balanced.
    """
    down, up = factors
    rank = down.shape[0]
    tall = torch.cat([up, gradient.left * (-step / scaling)], 1)
    wide = torch.cat([down, gradient.right], 0)
    left_basis, left_small = torch.linalg.qr(tall)
    right_basis, right_small = torch.linalg.qr(wide.T)
    left, values, right = torch.linalg.svd(left_small @ right_small.T, full_matrices=False)
    root = values[:rank].sqrt()
    new_up = left_basis @ (left[:, :rank] * root)
    new_down = (root[:, None] * right[:rank]) @ right_basis.T
    if (missing := rank - len(root)) > 0:  # the factors are wider than the matrix has rank
        new_up = pad(new_up, (0, missing))
        new_down = pad(new_down, (0, 0, 0, missing))
    turn_left, _, turn_right = torch.linalg.svd(new_up.T @ up + new_down @ down.T)
    turn = turn_left @ turn_right
    return Factors(turn.T @ new_down, new_up @ turn)
