"""Where domains disagree: per-domain gradients -> mean, variance, conflict mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Scale = Literal["none", "layer", "snr"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Moments(NamedTuple):
    """Mean and variance of a matrix's gradient over domains.

    Args:
        mean: G = sum_k w_k G_k, the matrix's shape.
        variance: V = sum_k w_k (G_k - G)^2, elementwise, the same shape.
    """

    mean: Tensor
    variance: Tensor


def domain_moments(
    gradients: Tensor,
    weights: Sequence[float],
    out: Moments | None = None,
    units: Sequence[float] | None = None,
    energies: Tensor | None = None,
    memory: Tensor | None = None,
) -> Moments:
    """Mean and variance over domains.

    G = sum_k w_k G_k; V = sum_k w_k (G_k - G)^2. With equal weights these are the mean and the
    (biased) variance over the domains.

    Args:
        gradients: (K, ...) gradients of the domains' mean losses, up to `units`.
        weights: K weights of the domains, which add up to 1.
        out: where to put them; its dtype may be wider than the gradients', and is computed in.
        units: K factors u_k; G_k is u_k times what `gradients` holds. None is 1.
        energies: (K,) sums to which the squared norms |G_k|^2 are added; None leaves them out.
        memory: as one gradient, of `out`'s dtype; written over.

    Reference: IGA (arXiv 2606.05025), "cross-domain gradient variance"; biased, as its abstract
    does not say otherwise (`Choice`).
    """
    like = gradients[0]
    mean, variance = out or (torch.empty_like(like), torch.empty_like(like))
    # One domain at a time, widened in the same memory: nothing is as large as all of them together,
    # and nothing is asked for anew, which on a CPU costs more than the arithmetic.
    memory = torch.empty_like(mean) if memory is None else memory
    scales = [1.0] * len(weights) if units is None else units
    mean.zero_()
    squares = []
    for gradient, share, scale in zip(gradients, weights, scales, strict=True):
        mean.add_(memory.copy_(gradient), alpha=share * scale)
        if energies is not None:
            squares.append(energy(memory) * scale**2)
    if energies is not None:
        energies += torch.stack(squares)
    variance.zero_()
    for gradient, share, scale in zip(gradients, weights, scales, strict=True):
        torch.sub(mean, memory.copy_(gradient), alpha=scale, out=memory)
        variance.addcmul_(memory, memory, value=share)
    return Moments(mean, variance)


def energy(values: Tensor) -> Tensor:
    """() sum of squares of all elements."""
    flat = values.reshape(-1)
    return torch.dot(flat, flat)


@dataclass(frozen=True)
class ConflictMask:
    """Continuous gradient conflict mask M = exp(-tau * V / scale).

    Args:
        scale: what the variance is measured against.
            "none": 1, the abstract's form. Raw variances of a language model's gradients are about
            1e-8, so tau must be that much larger.
            "layer": the layer's mean variance.
            "snr": G^2 + eps * mean(G^2), elementwise: noise against signal.
        eps: share of the layer's mean squared gradient that is added to every element's own in
            "snr", so that elements whose mean happens to vanish do not divide by zero.

    Properties: M is in [eps of the dtype, 1]; 1 where the domains agree; independent of the order
    of domains; with "layer" and "snr" also of a common factor of all gradients.

    Raises:
        ValueError: an unknown scale, or an eps that is not positive and finite.

    Reference: IGA (arXiv 2606.05025), M = exp(-tau * V).
    Choice: the scales "layer" and "snr" are ours; the abstract names none.
    """

    scale: Scale = "snr"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale: expected one of {', '.join(SCALES)}, found {self.scale!r}")
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps: expected a finite number above 0, found {self.eps!r}")

    def unit(self, power: Tensor, spread: Tensor) -> Tensor:
        """What one number of a whole layer the scale needs, ().

        Args:
            power: () the layer's mean of G^2.
            spread: () the layer's mean of V.
        """
        limits = torch.finfo(power.dtype)
        if self.scale == "snr":
            return (power * self.eps).clamp_min(limits.tiny)
        # Where all domains agree, what is left of the variance is rounding, and no scale.
        return torch.maximum(spread, power * limits.eps).clamp_min(limits.tiny)

    def __call__(
        self,
        moments: Moments,
        tau: float,
        unit: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """The mask, of the moments' shape and dtype.

        Args:
            moments: of one matrix, or of some rows of it.
            tau: temperature, 0 (all ones) or more; per unit of V / scale.
            unit: of the whole matrix, where the moments are a part of it.
            memory: where the mask is put, as the moments; None asks for new.

        Raises:
            ValueError: tau is negative or not a number.
        """
        if not tau >= 0:
            raise ValueError(f"tau: expected a number of 0 or more, found {tau!r}")
        mean, variance = moments
        if unit is None:
            unit = self.unit(mean.square().mean(), variance.mean())
        ratio = torch.empty_like(variance) if memory is None else memory
        if self.scale == "snr":
            torch.div(variance, torch.addcmul(unit, mean, mean, out=ratio), out=ratio)
        else:
            torch.div(variance, 1.0 if self.scale == "none" else unit, out=ratio)
        # Not below rounding: exp would underflow to a hard 0, and on the way there to denormal
        # numbers, with which processors are slower by an order of magnitude.
        least = math.log(torch.finfo(variance.dtype).eps)
        return ratio.mul_(-tau).clamp_min_(least).exp_()


def agreement(power: Tensor, energies: Tensor, weights: Sequence[float]) -> Tensor:
    """Mean cosine between the domains' gradients, weighted by their norms, () from -1 to 1.

    sum_{j != k} a_j a_k cos(G_j, G_k) / sum_{j != k} a_j a_k with a_k = w_k |G_k|: a pair weighs by
    its norms and by its domains' weights, so that a domain without gradient has no say. Where all
    a_k are alike it is the plain mean over pairs. 1 where fewer than two domains have a gradient.

    It follows from norms alone: the sum of the products is |G|^2 - sum_k a_k^2.

    Args:
        power: () squared norm of the mean, |G|^2.
        energies: (K,) squared norms |G_k|^2.
        weights: K weights w_k of the domains, which add up to 1.

    Choice: norms as weights. A mean of unit vectors would need another pass over all gradients, and
    let gradients that are next to nothing speak as loudly as the others.
    """
    rounding = 32 * torch.finfo(energies.dtype).eps
    parts = torch.stack([e * w**2 for e, w in zip(energies, weights, strict=True)])
    parts = torch.where(parts > rounding * parts.amax(), parts, 0.0)
    norms = parts.sqrt()
    pairs = torch.dot(norms, norms.sum() - norms)
    cosine = ((power - parts.sum()) / pairs).clamp(-1, 1)
    return torch.where(pairs > 0, cosine, 1.0)
