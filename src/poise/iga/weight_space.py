"""IGA on whole matrices: mask, low-rank projection, and the way to the factors, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.functional import pad

from .adapters import Adapter, Factors, UnsupportedAdapter
from .domains import Pass
from .invariant import IGA
from .mask import ConflictMask, Scratch, domain_gradients, masked_mean
from .shards import number_of_ranks
from .statistics import StatisticsLog

_IN_PARTS = (
    "{}: expected one backward pass of one loss, found a second; a mask needs the whole gradient "
    "at once. For a layer that is used twice under activation checkpointing set "
    "use_reentrant=False; or use space 'factor', which adds up parts"
)


class WeightSpace:
    """Turns each layer's gradient into IGA's as soon as its backward has run.

    Choice: a micro-batch with one domain is plain fine-tuning, without mask and projection, and by
    the chain rule also where the update is the retraction: there is nothing to compare.

    Args:
        adapters: LoRA matrices.
        method: the settings, space "weight".
        seed: of the projection's random starts.
    """

    def __init__(self, adapters: Sequence[Adapter], method: IGA, seed: int) -> None:
        if method.update == "retraction":
            _require_retractable(adapters)
        self.statistics = StatisticsLog()
        self._layers = [_Layer(adapter, method, seed) for adapter in adapters]
        self._scratch = Scratch()
        self._method = method

    def attach(self, watched: Pass) -> None:
        """Hooks every layer for one forward and backward pass."""
        for layer in self._layers:
            layer.attach(watched, self._scratch, self.statistics)

    def detach(self) -> None:
        """Ends a pass, also an interrupted one."""
        self._scratch.release()
        for layer in self._layers:
            layer.forget()

    def reset(self) -> None:
        """Forgets the step so far."""
        for layer in self._layers:
            layer.forget_step()

    def finish(self, learning_rate: float | None) -> None:
        """Chain rule: nothing is left to do. Retraction: writes the factors' gradients."""
        if self._method.update != "retraction":
            return
        if learning_rate is None or not learning_rate > 0:
            raise ValueError(
                "finish: expected the learning rate of the step, above 0, for the update "
                f"'retraction', found {learning_rate!r}"
            )
        for layer in self._layers:
            layer.retract(learning_rate)

    def before_step(self) -> None:
        """Nothing acts on the optimizer's steps."""

    def after_step(self) -> None:
        """Nothing acts on the optimizer's steps."""

    def state_dict(self) -> dict[str, Tensor]:
        """Warm starts by layer."""
        return {x.name: x.start.contiguous() for x in self._layers if x.start is not None}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes `state_dict`'s.

        Raises:
            ValueError: layers or shapes of another model, or of other settings.
        """
        if unknown := set(state) - {layer.name for layer in self._layers}:
            raise ValueError(
                f"warm starts: expected layers of this model, found {sorted(unknown)[0]!r}"
            )
        for layer in self._layers:
            layer.load_start(state.get(layer.name))


def _require_retractable(adapters: Sequence[Adapter]) -> None:
    if (ranks := number_of_ranks()) > 1:
        raise ValueError(
            f"update 'retraction': expected one process, found {ranks}; each would move its own "
            "way, so use update 'chain'"
        )
    for adapter in adapters:
        if not all(parameter.requires_grad for parameter in adapter.parameters):
            raise UnsupportedAdapter(
                f"{adapter.name}: expected both factors to be trained, found one frozen; the "
                "retraction moves both, so use update 'chain'"
            )


class _Layer:
    """One adapter: collects (x, delta) in the backward pass and replaces the factors' gradients."""

    def __init__(self, adapter: Adapter, method: IGA, seed: int) -> None:
        self.name = adapter.name
        self.start: Tensor | None = None
        self._adapter, self._method = adapter, method
        self._mask: ConflictMask = method.mask
        self._seed = seed + crc32(adapter.name.encode())
        self.forget_step()
        self.forget()

    @property
    def _start_shape(self) -> tuple[int, int]:
        down, up = self._adapter.parameters
        rank, rows, columns = self._method.rank or down.shape[0], up.shape[0], down.shape[1]
        return columns, min(rank + self._method.oversampling, rows, columns)

    def load_start(self, start: Tensor | None) -> None:
        if start is not None and tuple(start.shape) != self._start_shape:
            raise ValueError(
                f"warm starts: expected shape {self._start_shape} for {self.name}, found "
                f"{tuple(start.shape)}; they belong to another model, rank or oversampling"
            )
        self.start = start

    def forget_step(self) -> None:
        self._steps: list[LowRank] = []  # for the retraction, one for each micro-batch

    def forget(self) -> None:
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._result: Factors | None = None

    def attach(self, watched: Pass, scratch: Scratch, statistics: StatisticsLog) -> None:
        self.forget()

        def replace(part: int, gradient: Tensor) -> Tensor:
            # Both factors' hooks run after the last use of the layer has been seen.
            if self._pairs:
                if self._result is not None:
                    raise RuntimeError(_IN_PARTS.format(self.name))
                pairs = watched.tokens_by_domain(self._pairs, self.name)
                self._result = self._align(pairs, watched, scratch, statistics)
                self._pairs = []
            if self._result is None:
                watched.expect_none(gradient, self.name)
                return gradient
            return self._result[part].to(gradient)

        adapter = self._adapter
        watched.tap(adapter.source, adapter.up, lambda x, delta: self._pairs.append((x, delta)))
        for part, module in enumerate((adapter.down, adapter.up)):
            watched.replace_gradient(module, partial(replace, part))

    @torch.no_grad()
    def _align(
        self,
        pairs: Sequence[tuple[Tensor, Tensor]],
        watched: Pass,
        scratch: Scratch,
        statistics: StatisticsLog,
    ) -> Factors:
        # What arrives at B's output is s * delta.
        units = [unit / self._adapter.scaling for unit in watched.units.values()]
        gradients = domain_gradients(pairs, scratch)
        weights = list(watched.weights.values())
        masked, seen = masked_mean(gradients, units, weights, self._mask, watched.tau, scratch)
        projected = self._project(masked) if len(weights) > 1 else masked
        kept = projected.right.square().sum() if isinstance(projected, LowRank) else None
        energy = masked.square().sum()
        # Nothing is lost of nothing.
        whole = energy if kept is None else kept
        rank_energy = torch.where(energy > 0, whole / energy, 1.0)
        statistics.add(self.name, torch.cat([seen, rank_energy[None]]))
        return self._to_factors(projected, watched.share)

    def _project(self, masked: Tensor) -> Tensor | LowRank:
        method = self._method
        rank = method.rank or self._adapter.down.weight.shape[0]
        if method.projection == "none":
            return masked
        try:
            if method.projection == "exact":
                return truncated_svd(masked, rank)
            return self._project_randomly(masked, rank)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            if bool(masked.isfinite().all()):
                raise
            return masked  # a gradient scaler, or a guard, has to see what is not finite

    def _project_randomly(self, masked: Tensor, rank: int) -> LowRank:
        start, iterations = self.start, 1
        if start is None:
            start, iterations = random_start(*self._start_shape, self._seed, masked), 2
        projected, self.start = randomized_svd(masked, rank, start.to(masked), iterations)
        return projected

    def _to_factors(self, projected: Tensor | LowRank, share: float) -> Factors:
        factors = Factors(*(factor.to(projected[0]) for factor in self._adapter.factors))
        if self._method.update == "retraction" and isinstance(projected, LowRank):
            self._steps.append(LowRank(projected.left, projected.right * share))
            return Factors(*(torch.zeros_like(factor) for factor in factors))
        down, up = chain_rule(projected, factors, self._adapter.scaling)
        return Factors(down * share, up * share)

    @torch.no_grad()
    def retract(self, learning_rate: float) -> None:
        """Gradients with which a plain SGD step makes the retracted factors."""
        steps, self._steps = self._steps, []
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
