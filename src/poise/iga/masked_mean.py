"""The masked mean gradient of one matrix, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .mask import ConflictMask, Moments, agreement, domain_moments, energy

# Elements of a tile. Larger ones leave the processor's cache, smaller ones cost more calls;
# measured on a CPU with 2 MiB of it a core.
_CPU_TILE = 1 << 17


# Devices whose allocator hands out fresh memory slowly, so that it is kept from step to step: pages
# of a CPU are zeroed at their first touch, which costs more than the arithmetic on them.
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


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is summed up in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def domain_gradients(pairs: Sequence[tuple[Tensor, Tensor]], scratch: Scratch) -> Tensor:
    """sum_t delta_t x_t^T of each domain, (K, out, in); it lives until the next layer's.

    Args:
        pairs: for each domain the inputs (n_k, in) and the output gradients (n_k, out).
        scratch: where they are put.

    Returns:
        In the output gradients' own dtype, in which matrix products are fast; float16 becomes
        float32, as a scaled loss leaves its range no room for a sum.
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
    """M * G, and what was seen on the way.

    Args:
        gradients: (K, out, in), of the domains, up to `units`.
        units: K factors of them.
        weights: K weights, which add up to 1.
        mask: the law of the mask.
        tau: its temperature.
        scratch: where the result is put: it lives until the next layer's.

    Returns:
        M * G, (out, in), float32 or float64; and (3,) mean mask, suppressed energy and
        agreement of the domains.
    """
    shape, dtype = gradients.shape[1:], accumulation_dtype(gradients.dtype)
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
