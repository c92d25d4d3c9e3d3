"""IGA on whole matrices: mask, low-rank projection, and the way to the factors, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..sharding import number_of_ranks
from .adapters import Adapter, Factors, RunningMeans, Space, UnsupportedAdapter
from .domains import Pair, Pass
from .mask import Scratch, domain_gradients, masked_mean
from .settings import IGA

_IN_PARTS = (
    "{}: expected one backward pass of one loss, found a second; a mask needs the whole gradient "
    "at once. For a layer that is used twice under activation checkpointing set "
    "use_reentrant=False; or use space 'factor', which adds up parts"
)


class WeightSpace(Space):
    """Turns each layer's gradient into IGA's as soon as its backward has run.

    A micro-batch's mask is made from its own isomer sets, and the masked gradients of micro-batches
    (and of ranks, under DDP) are averaged.

    Choice: a micro-batch with one domain is plain fine-tuning, without mask and projection, and by
    the chain rule also where the update is the retraction: there is nothing to compare.
    """

    def __init__(self, adapters: Sequence[Adapter], method: IGA, seed: int) -> None:
        super().__init__()
        self._retracts = method.update == "retraction"
        if self._retracts and (ranks := number_of_ranks()) > 1:
            raise ValueError(
                f"update 'retraction': expected one process, found {ranks}; each would move its "
                "own way, so use update 'chain'"
            )
        for adapter in adapters if self._retracts else ():
            if not all(adapter.trained):
                raise UnsupportedAdapter(
                    f"{adapter.name}: expected both factors to be trained, found one frozen; the "
                    "retraction moves both, so use update 'chain'"
                )
        self._scratch = Scratch()
        self._layers = [
            _Layer(adapter, method, seed, self._scratch, self.statistics) for adapter in adapters
        ]
        self.shapes = {layer.name: layer.start_shape for layer in self._layers}

    def attach(self, watched: Pass) -> None:
        for layer in self._layers:
            layer.attach(watched)

    def detach(self) -> None:
        self._scratch.release()

    def reset(self) -> None:
        for layer in self._layers:
            layer.steps = []

    def finish(self, learning_rate: float | None) -> None:
        """Chain rule: nothing is left to do. Retraction: writes the factors' gradients."""
        if not self._retracts:
            return
        if learning_rate is None or not learning_rate > 0:
            raise ValueError(
                "finish: expected the learning rate of the step, above 0, for the update "
                f"'retraction', found {learning_rate!r}"
            )
        for layer in self._layers:
            layer.retract(learning_rate)

    def state_dict(self) -> dict[str, Tensor]:
        """Warm starts by layer."""
        return {x.name: x.start.contiguous() for x in self._layers if x.start is not None}

    def take(self, state: dict[str, Tensor]) -> None:
        for layer in self._layers:
            layer.start = state.get(layer.name)


class _Layer:
    """One adapter: collects (x, delta) in the backward pass and replaces the factors' gradients."""

    def __init__(
        self,
        adapter: Adapter,
        method: IGA,
        seed: int,
        scratch: Scratch,
        statistics: RunningMeans,
    ) -> None:
        self.name, self._scratch, self._statistics = adapter.name, scratch, statistics
        self.start: Tensor | None = None
        self.steps: list[LowRank] = []  # for the retraction, one for each micro-batch
        self._adapter, self._method, self._mask = adapter, method, method.mask
        self._rank = method.rank or adapter.down.weight.shape[0]
        self._seed = seed + crc32(adapter.name.encode())
        rows, columns = adapter.up.weight.shape[0], adapter.down.weight.shape[1]
        self.start_shape = columns, min(self._rank + method.oversampling, rows, columns)

    def attach(self, watched: Pass) -> None:
        pairs: list[Pair] = []
        results: list[Factors] = []
        given: set[int] = set()

        def replace(part: int, gradient: Tensor) -> Tensor:
            # Both factors' hooks run after the last use of the layer has been seen.
            if pairs:
                if results:
                    raise RuntimeError(_IN_PARTS.format(self.name))
                results.append(self._align(pairs, watched))
                pairs.clear()
            elif part in given:
                watched.expect_none(self.name, gradient)
                return gradient
            given.add(part)
            return results[0][part].to(gradient)

        a = self._adapter
        watched.watch(self.name, a.source, a.up, (a.down, a.up), pairs.append, replace)

    @torch.no_grad()
    def _align(self, pairs: list[Pair], watched: Pass) -> Factors:
        """The factors' gradients of a pass."""
        # What arrives at B's output is s * delta.
        units = [unit / self._adapter.scaling for unit in watched.units.values()]
        scratch = self._scratch
        gradients = domain_gradients(watched.tokens_by_domain(pairs, self.name), scratch)
        weights = list(watched.weights.values())
        masked, seen = masked_mean(gradients, units, weights, self._mask, watched.tau, scratch)
        projected = self._project(masked) if len(weights) > 1 else masked
        energy = masked.square().sum()
        kept = projected.right.square().sum() if isinstance(projected, LowRank) else energy
        rank_energy = torch.where(energy > 0, kept / energy, 1.0)  # nothing is lost of nothing
        self._statistics.add(self.name, torch.cat([seen, rank_energy[None]]))
        factors = Factors(*(factor.to(masked) for factor in self._adapter.factors))
        if self._method.update == "retraction" and isinstance(projected, LowRank):
            self.steps.append(LowRank(projected.left, projected.right * watched.share))
            return Factors(*(torch.zeros_like(factor) for factor in factors))
        down, up = chain_rule(projected, factors, self._adapter.scaling)
        return Factors(down * watched.share, up * watched.share)

    def _project(self, masked: Tensor) -> Tensor | LowRank:
        method = self._method
        if method.projection == "none":
            return masked
        try:
            if method.projection == "exact":
                return truncated_svd(masked, self._rank)
            start, iterations = self.start, 1
            if start is None:
                start, iterations = random_start(*self.start_shape, self._seed, masked), 2
            projected, self.start = randomized_svd(masked, self._rank, start.to(masked), iterations)
            return projected
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            if bool(masked.isfinite().all()):
                raise
            return masked  # a gradient scaler, or a guard, has to see what is not finite

    @torch.no_grad()
    def retract(self, learning_rate: float) -> None:
        """Gradients with which a plain SGD step makes the retracted factors."""
        steps, self.steps = self.steps, []
        if not steps:
            return
        left, right = torch.cat([s.left for s in steps], 1), torch.cat([s.right for s in steps])
        before = Factors(*(factor.to(left) for factor in self._adapter.factors))
        after = retract(LowRank(left, right), before, self._adapter.scaling, learning_rate)
        for parameter, old, new in zip(self._adapter.parameters, before, after, strict=True):
            if parameter.grad is not None:
                parameter.grad += ((old - new) / learning_rate).to(parameter.grad)


# Rank-r projection of a gradient, and its way to the factors.


class LowRank(NamedTuple):
    """A matrix as a product, left @ right."""

    left: Tensor  # (out, r), orthonormal columns
    right: Tensor  # (r, in)


def truncated_svd(matrix: Tensor, rank: int) -> LowRank:
    """The best approximation of a rank (or of the matrix's own), by an exact SVD."""
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
        rank: r.
        start: (in, q), q at least the rank: `random_start`, or from the call before.
        iterations: 1 or more.

    Returns:
        The approximation, and the (in, q) start for the next call.

    Source: Halko, Martinsson, Tropp, Finding structure with randomness (2011), algorithms 4.4 and
    5.1, theorem 10.5.
    """
    given = start
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


def chain_rule(gradient: Tensor | LowRank, factors: Factors, scaling: float) -> Factors:
    """Gradients of the factors A and B from that of the matrix W = W0 + s B A, P (out, in).

    dA = s B^T P; dB = s P A^T.
    """
    down, up = factors
    if isinstance(gradient, LowRank):
        left, right = gradient
        return Factors(scaling * ((up.T @ left) @ right), scaling * (left @ (right @ down.T)))
    return Factors(scaling * (up.T @ gradient), scaling * (gradient @ down.T))


def retract(gradient: LowRank, factors: Factors, scaling: float, step: float) -> Factors:
    """New factors after a step along a low-rank gradient on the manifold of rank-r matrices.

    B' A' = trunc_r(B A - (step / s) P): the Riemannian form of the update W <- W - step * P.

    Choice: of all pairs A' and B' with this product, the balanced one (B'^T B' = A' A'^T) in the
    orientation that is nearest to the pair before (orthogonal Procrustes), so that a small step
    changes the factors little where they were balanced.

    Args:
        gradient: P.
        factors: A and B, of rank r.
        scaling: s of W = W0 + s B A.
        step: learning rate.
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
