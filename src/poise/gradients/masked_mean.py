"""The masked mean gradient of one matrix, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..core.conflict import ConflictMask, Moments, domain_moments, mean_cosine

# Elements of a tile of all domains together that a CPU core keeps in its cache; measured.
_CPU_TILE = 1 << 18


class Scratch:
    """Memory that layers use one after the other, so that each need not ask for its own."""

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


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is summed up in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def domain_gradients(
    pairs: Sequence[tuple[Tensor, Tensor]], units: Sequence[float], scratch: Scratch
) -> Tensor:
    """(K, out, in) gradients G_k = u_k * sum_t delta_t x_t^T, in the gradients' own dtype.

    Args:
        pairs: for each domain the inputs (n_k, in) and the output gradients (n_k, out).
        units: u_k.
        scratch: where they are put: they live until the next layer's.
    """
    (x, delta), number = pairs[0], len(pairs)
    shape = (number, delta.shape[1], x.shape[1])
    gradients = scratch.take("domains", shape, delta, delta.dtype)
    for target, (x, delta), unit in zip(gradients, pairs, units, strict=True):
        torch.mm((delta * unit).T, x.to(delta.dtype), out=target)
    return gradients


def masked_mean(
    gradients: Tensor, weights: Tensor, mask: ConflictMask, tau: float, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """M * G, and what was seen on the way.

    Args:
        gradients: (K, rows, columns) of the domains.
        weights: (K,), which add up to 1.
        mask: the law of the mask.
        tau: its temperature.
        scratch: where the result is put: it lives until the next layer's.

    Returns:
        M * G, (rows, columns), float32 or float64; and (3,) mean mask, suppressed energy and mean
        cosine between the domains.
    """
    shape, dtype = tuple(gradients.shape[1:]), accumulation_dtype(gradients.dtype)
    mean = scratch.take("mean", shape, gradients, dtype)
    variance = scratch.take("variance", shape, gradients, dtype)
    weights = weights.to(gradients.device, dtype)
    if len(weights) == 1:
        tau = 0.0  # one domain cannot disagree
    gram = torch.zeros(len(weights), len(weights), dtype=dtype, device=gradients.device)
    power = spread = gram.new_zeros(())
    for rows in _tiles(gradients):
        part = gradients[:, rows].to(dtype)
        moments = domain_moments(part, weights)
        mean[rows], variance[rows] = moments
        gram.addmm_(part.flatten(1), part.flatten(1).T)
        power = power + moments.mean.square().sum()
        spread = spread + moments.variance.sum()
    size = mean.numel()
    unit = mask.unit(power / size, spread / size)
    total = kept = gram.new_zeros(())
    for rows in _tiles(gradients):
        values = mask(Moments(mean[rows], variance[rows]), tau, unit)
        total = total + values.sum()
        mean[rows] *= values
        kept = kept + mean[rows].square().sum()
    suppressed = 1 - kept / power.clamp_min(torch.finfo(dtype).tiny)
    return mean, torch.stack([total / size, suppressed, mean_cosine(gram)])


def _tiles(gradients: Tensor) -> Iterator[slice]:
    number, rows, columns = gradients.shape
    is_cpu = gradients.device.type == "cpu"
    step = max(1, _CPU_TILE // (number * columns)) if is_cpu else rows
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
