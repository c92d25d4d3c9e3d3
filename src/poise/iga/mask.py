"""Where domains disagree: per-domain gradients -> mean, variance, mask -> masked mean, by tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Scale = Literal["none", "layer", "snr"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Moments(NamedTuple):
    """Mean and variance of a matrix's gradient over domains, of its shape."""

    mean: Tensor  # G = sum_k w_k G_k
    variance: Tensor  # V = sum_k w_k (G_k - G)^2


def domain_moments(
    gradients: Tensor,
    weights: Sequence[float],
    out: Moments | None = None,
    units: Sequence[float] | None = None,
    energies: Tensor | None = None,
    memory: Tensor | None = None,
) -> Moments:
    """G = sum_k w_k G_k and V = sum_k w_k (G_k - G)^2, elementwise.

    Args:
        gradients: (K, ...) gradients of the domains' mean losses, up to `units`.
        weights: K weights of the domains, which add up to 1.
        out: where to put them; its dtype may be wider than the gradients', and is computed in.
        units: K factors u_k; G_k is u_k times what `gradients` holds. None is 1.
        energies: (K,) sums to which the squared norms |G_k|^2 are added; None leaves them out.
        memory: as one gradient, of `out`'s dtype; written over.

    Reference: IGA (arXiv 2606.05025), "cross-domain gradient variance".
    Choice: the biased one, as the abstract does not say otherwise.
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

    M is in [eps of the dtype, 1]; 1 where the domains agree; independent of the order of domains;
    with "layer" and "snr" also of a common factor of all gradients.

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
        is_number = isinstance(self.eps, int | float) and not isinstance(self.eps, bool)
        if not is_number or not 0 < self.eps < math.inf:
            raise ValueError(f"eps: expected a finite number above 0, found {self.eps!r}")

    def unit(self, power: Tensor, spread: Tensor) -> Tensor:
        """The number of a whole layer that the scale needs, (), from its means of G^2 and of V."""
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
    """Mean cosine between the domains' gradients, () from -1 to 1.

    sum_{j != k} a_j a_k cos(G_j, G_k) / sum_{j != k} a_j a_k with a_k = w_k |G_k|; 1 where fewer
    than two domains have a gradient. It follows from norms: the sum of the products is
    |G|^2 - sum_k a_k^2.

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


# One matrix, tile by tile.

# Elements of a tile. Larger ones leave the processor's cache, smaller ones cost more calls;
# measured on a CPU with 2 MiB of it a core.
_CPU_TILE = 1 << 17
# Devices whose memory is kept from step to step: pages of a CPU are zeroed at their first touch,
# which costs more than the arithmetic on them.
_KEPT = ("cpu",)


class Scratch:
    """Memory that layers use one after the other, so that each need not ask for its own.

    It grows to what the largest layer needs: K x out x in in the gradients' dtype, out x in twice
    in the sums'. On an accelerator it lasts for a pass; on a CPU it stays.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """A tensor of the shape, whose content is undefined."""
        size = torch.Size(shape).numel()
        key = (name, dtype, like.device)
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[key] = torch.empty(size, dtype=dtype, device=like.device)
        return buffer[:size].view(shape)

    def release(self) -> None:
        """Gives accelerators' memory back."""
        self._buffers = {key: b for key, b in self._buffers.items() if b.device.type in _KEPT}

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(b.numel() * b.element_size() for b in self._buffers.values())


def domain_gradients(pairs: Sequence[tuple[Tensor, Tensor]], scratch: Scratch) -> Tensor:
    """sum_t delta_t x_t^T of each domain, (K, out, in), from x (n_k, in) and delta (n_k, out).

    It lives until the next layer's, in delta's dtype, in which matrix products are fast; float16
    becomes float32, as a scaled loss leaves its range no room for a sum.
    """
    (x, like), number = pairs[0], len(pairs)
    dtype = torch.float32 if like.dtype == torch.float16 else like.dtype
    products = scratch.take("products", (number, like.shape[1], x.shape[1]), like, dtype)
    for target, (x, delta) in zip(products, pairs, strict=True):
        torch.mm(delta.to(dtype).T, x.to(dtype), out=target)
    return products


def masked_mean(
    gradients: Tensor,
    units: Sequence[float],
    weights: Sequence[float],
    mask: ConflictMask,
    tau: float,
    scratch: Scratch,
) -> tuple[Tensor, Tensor]:
    """M * G, (out, in) in float32 or float64; and (3,) mean mask, suppressed energy, agreement.

    Args:
        gradients, units, weights: (K, out, in) and K numbers each, see `domain_moments`.
        mask: its law.
        tau: its temperature.
        scratch: where the result is put: it lives until the next layer's.
    """
    shape, dtype = gradients.shape[1:], torch.promote_types(gradients.dtype, torch.float32)
    mean = scratch.take("mean", shape, gradients, dtype)
    variance = scratch.take("variance", shape, gradients, dtype)
    power, spread, total, kept = mean.new_zeros(4).unbind()
    energies = mean.new_zeros(len(gradients))
    for rows in _tiles(mean):
        out = Moments(mean[rows], variance[rows])
        memory = scratch.take("tile", tuple(out.mean.shape), gradients, dtype)
        domain_moments(gradients[:, rows], weights, out, units, energies, memory)
        power += energy(out.mean)
        spread += out.variance.sum()
    size = mean.numel()
    unit = mask.unit(power / size, spread / size)
    for rows in _tiles(mean):
        out = Moments(mean[rows], variance[rows])
        memory = scratch.take("tile", tuple(out.mean.shape), gradients, dtype)
        # One domain cannot disagree.
        values = mask(out, tau if len(weights) > 1 else 0.0, unit, memory)
        total += values.sum()
        kept += energy(mean[rows].mul_(values))
    suppressed = (power - kept) / power.clamp_min(torch.finfo(dtype).tiny)
    return mean, torch.stack([total / size, suppressed, agreement(power, energies, weights)])


def _tiles(matrix: Tensor) -> Iterator[slice]:
    rows, columns = matrix.shape
    step = max(1, _CPU_TILE // columns) if matrix.device.type == "cpu" else rows
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
