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
    weights: Tensor,
    out: Moments | None = None,
    units: Sequence[float] | None = None,
) -> Moments:
    """Mean and variance over domains.

    G = sum_k w_k G_k; V = sum_k w_k (G_k - G)^2. With equal weights these are the mean and the
    (biased) variance over the domains.

    Args:
        gradients: (K, ...) gradients of the domains' mean losses, up to `units`.
        weights: (K,) weights of the domains, which add up to 1.
        out: where to put them; its dtype may be wider than the gradients', and is computed in.
        units: K factors u_k; G_k is u_k times what `gradients` holds. None is 1.

    Reference: IGA (arXiv 2606.05025), "cross-domain gradient variance"; biased, as its abstract
    does not say otherwise (`Choice`).
    """
    like = gradients[0]
    mean, variance = out or (torch.empty_like(like), torch.empty_like(like))
    # One domain at a time: nothing is as large as all of them together.
    shares = weights.tolist()
    scales = [1.0] * len(shares) if units is None else units
    mean.zero_()
    for gradient, share, scale in zip(gradients, shares, scales, strict=True):
        mean.add_(gradient, alpha=share * scale)
    variance.zero_()
    difference = torch.empty_like(mean)
    for gradient, share, scale in zip(gradients, shares, scales, strict=True):
        torch.sub(mean, gradient, alpha=scale, out=difference)
        variance.addcmul_(difference, difference, value=share)
    return Moments(mean, variance)


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
        ValueError: an unknown scale, or an eps that is not positive.

    Reference: IGA (arXiv 2606.05025), M = exp(-tau * V).
    Choice: the scales "layer" and "snr" are ours; the abstract names none.
    """

    scale: Scale = "snr"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale: expected one of {', '.join(SCALES)}, found {self.scale!r}")
        if not self.eps > 0:
            raise ValueError(f"eps: expected a number above 0, found {self.eps!r}")

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

    def __call__(self, moments: Moments, tau: float, unit: Tensor | None = None) -> Tensor:
        """The mask, of the moments' shape and dtype.

        Args:
            moments: of one matrix, or of some rows of it.
            tau: temperature, 0 (all ones) or more; per unit of V / scale.
            unit: of the whole matrix, where the moments are a part of it.

        Raises:
            ValueError: tau is negative or not a number.
        """
        if not tau >= 0:
            raise ValueError(f"tau: expected a number of 0 or more, found {tau!r}")
        mean, variance = moments
        if unit is None:
            unit = self.unit(mean.square().mean(), variance.mean())
        if self.scale == "snr":
            ratio = variance / torch.addcmul(unit, mean, mean)
        else:
            ratio = variance if self.scale == "none" else variance / unit
        # Not below rounding: exp would underflow to a hard 0, and on the way there to denormal
        # numbers, with which processors are slower by an order of magnitude.
        least = math.log(torch.finfo(variance.dtype).eps)
        return ratio.mul(-tau).clamp_min_(least).exp_()


def agreement(power: Tensor, spread: Tensor, weights: Tensor) -> Tensor:
    """How far the domains' gradients point the same way, () from below 0 to 1.

    1 for one domain, and where nothing disagrees because there is no gradient at all.

    Mean inner product between two domains over the mean squared norm: the mean pairwise cosine,
    pairs weighted by their norms. Both follow from the moments, so it costs nothing.

    Args:
        power: () squared norm of the mean, |G|^2.
        spread: () sum of the variance; |G|^2 + sum V = sum_k w_k |G_k|^2.
        weights: (K,) weights of the domains, which add up to 1; pairs weigh w_j w_k.
    """
    if len(weights) < 2:
        return torch.ones_like(power)
    alone = float(weights.square().sum())  # what is left of the squared norm without any agreement
    ratio = power / (power + spread)
    return torch.where(power + spread > 0, (ratio - alone) / (1 - alone), 1.0)
