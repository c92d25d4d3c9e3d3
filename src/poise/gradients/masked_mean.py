"""The masked mean gradient of one matrix, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.conflict import ConflictMask, Moments, agreement, domain_moments

# Elements of a tile, all domains together. Smaller ones make products slow, larger ones leave the
# processor's cache and make everything else slow; measured on a CPU with 2 MiB of it a core.
_CPU_TILE = 1 << 20


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


class DomainGradients(NamedTuple):
    """Per-domain gradients of one matrix, made when they are asked for, some rows at a time.

    Args:
        shape: (K, out, in).
        like: a tensor of their dtype and device.
        units: K factors.
        rows: rows (a slice of out) -> (K, rows, in) in the dtype of sums, to be multiplied by
            `units`; it lives until the next call.
    """

    shape: tuple[int, int, int]
    like: Tensor
    units: Sequence[float]
    rows: Callable[[slice], Tensor]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is summed up in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def from_tokens(
    pairs: Sequence[tuple[Tensor, Tensor]], units: Sequence[float], scratch: Scratch
) -> DomainGradients:
    """G_k = u_k * sum_t delta_t x_t^T; the products are in the output gradients' own dtype.

    Args:
        pairs: for each domain the inputs (n_k, in) and the output gradients (n_k, out).
        units: u_k.
        scratch: where they are put.
    """
    pairs = [(x.to(delta.dtype), delta) for x, delta in pairs]
    (x, like), number = pairs[0], len(pairs)
    columns, dtype = x.shape[1], accumulation_dtype(like.dtype)

    def rows(part: slice) -> Tensor:
        shape = (number, part.stop - part.start, columns)
        products = scratch.take("products", shape, like, like.dtype)
        for target, (x, delta) in zip(products, pairs, strict=True):
            torch.mm(delta[:, part].T, x, out=target)
        if products.dtype == dtype:
            return products
        return scratch.take("sums", shape, like, dtype).copy_(products)

    return DomainGradients((number, like.shape[1], columns), like, units, rows)


def from_stack(gradients: Tensor) -> DomainGradients:
    """Gradients that are there already, (K, out, in), in the dtype of sums."""
    number, rows, columns = gradients.shape
    shape, units = (number, rows, columns), [1.0] * number
    return DomainGradients(shape, gradients, units, lambda part: gradients[:, part])


def masked_mean(
    gradients: DomainGradients, weights: Tensor, mask: ConflictMask, tau: float, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """M * G, and what was seen on the way.

    Args:
        gradients: of the domains.
        weights: (K,), which add up to 1.
        mask: the law of the mask.
        tau: its temperature.
        scratch: where the result is put: it lives until the next layer's.

    Returns:
        M * G, (out, in), float32 or float64; and (3,) mean mask, suppressed energy and
        agreement of the domains.
    """
    shape, like, dtype = (
        gradients.shape[1:],
        gradients.like,
        accumulation_dtype(gradients.like.dtype),
    )
    mean = scratch.take("mean", shape, like, dtype)
    variance = scratch.take("variance", shape, like, dtype)
    power, spread, total, kept = mean.new_zeros(4).unbind()
    for rows in _tiles(gradients):
        out = Moments(mean[rows], variance[rows])
        moments = domain_moments(gradients.rows(rows), weights, out, gradients.units)
        power += _energy(moments.mean)
        spread += moments.variance.sum()
    size = mean.numel()
    unit = mask.unit(power / size, spread / size)
    for rows in _tiles(gradients):
        # One domain cannot disagree.
        values = mask(Moments(mean[rows], variance[rows]), tau if len(weights) > 1 else 0.0, unit)
        total += values.sum()
        kept += _energy(mean[rows].mul_(values))
    suppressed = (power - kept) / power.clamp_min(torch.finfo(dtype).tiny)
    return mean, torch.stack([total / size, suppressed, agreement(power, spread, weights)])


def _energy(values: Tensor) -> Tensor:
    flat = values.reshape(-1)
    return torch.dot(flat, flat)


def _tiles(gradients: DomainGradients) -> Iterator[slice]:
    number, rows, columns = gradients.shape
    is_cpu = gradients.like.device.type == "cpu"
    step = max(1, _CPU_TILE // (number * columns)) if is_cpu else rows
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
