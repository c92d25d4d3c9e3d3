"""The masked mean of per-domain gradients, tile by tile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.iga import mask as module
from poise.iga.mask import (
    SCALES,
    ConflictMask,
    Scratch,
    agreement,
    domain_gradients,
    domain_moments,
    masked_mean,
)

WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
ONES = [1.0] * 3


def _pairs(dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(n, 5, generator=generator).to(dtype),
            torch.randn(n, 7, generator=generator).to(dtype),
        )
        for n in (4, 1, 6)
    ]


def _stack(pairs: list[tuple[Tensor, Tensor]], units: list[float]) -> Tensor:
    return torch.stack(
        [u * (d.double().T @ x.double()) for u, (x, d) in zip(units, pairs, strict=True)]
    )


@pytest.mark.parametrize("tile", [1, 40, 1 << 18])
@pytest.mark.parametrize("scale", SCALES)
def test_tiles_and_tokens_give_the_masked_mean_of_the_whole(
    scale: Any, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CPU_TILE", tile)
    units, law = [1.0, 0.5, 2.0], ConflictMask(scale)
    stack = _stack(_pairs(), units)
    energies = torch.zeros(3, dtype=torch.float64)
    moments = domain_moments(stack, WEIGHTS, energies=energies)
    torch.testing.assert_close(energies, stack.square().sum((1, 2)))
    mask = law(moments, 0.7)
    expected = mask * moments.mean
    seen_expected = [
        mask.mean(),
        1 - expected.square().sum() / moments.mean.square().sum(),
        agreement(moments.mean.square().sum(), energies, WEIGHTS),
    ]
    for gradients, factors in ((stack, ONES), (domain_gradients(_pairs(), Scratch()), units)):
        found, seen = masked_mean(gradients, factors, WEIGHTS, law, 0.7, Scratch())
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(seen, torch.stack(seen_expected))


@pytest.mark.parametrize("scale", SCALES)
def test_one_domain_is_not_masked(scale: Any) -> None:
    stack = torch.randn(1, 7, 5, dtype=torch.float64)
    found, seen = masked_mean(stack, [1.0], WEIGHTS[:1] * 2, ConflictMask(scale), 1e9, Scratch())
    assert torch.equal(found, stack[0])
    assert seen.tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("scale", SCALES)
def test_of_no_gradient_nothing_is_suppressed(scale: Any) -> None:
    stack = torch.zeros(3, 7, 5)
    found, seen = masked_mean(stack, ONES, WEIGHTS, ConflictMask(scale), 1.0, Scratch())
    assert not bool(found.any())
    assert seen.tolist() == [1.0, 0.0, 1.0]


def test_memory_is_used_again_whatever_it_held() -> None:
    scratch, law = Scratch(), ConflictMask()
    large = torch.full((3, 20, 30), torch.nan)
    masked_mean(large, ONES, WEIGHTS, law, 1.0, scratch)
    first, fresh = (
        masked_mean(domain_gradients(_pairs(), memory), ONES, WEIGHTS, law, 1.0, memory)[0]
        for memory in (scratch, Scratch())
    )
    assert torch.equal(first, fresh)
    pointer = scratch.take("mean", (7, 5), first, first.dtype).data_ptr()
    assert pointer == scratch.take("mean", (2, 3), first, first.dtype).data_ptr()


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01), (torch.float16, 1e-3)]
)
@pytest.mark.parametrize("scale", ["layer", "snr"])
def test_low_precision_is_summed_up_in_float32(
    scale: Any, dtype: torch.dtype, bound: float
) -> None:
    """Relative errors measured: bfloat16 0.002, float16 2e-4, float32 1e-7."""
    law, pairs = ConflictMask(scale, eps=1e-3), _pairs(dtype)
    gradients = domain_gradients(pairs, Scratch())
    found, _ = masked_mean(gradients, ONES, WEIGHTS, law, 1.0, Scratch())
    expected, _ = masked_mean(_stack(pairs, ONES), ONES, WEIGHTS, law, 1.0, Scratch())
    assert found.dtype == torch.float32
    assert (found.double() - expected).norm() < bound * expected.norm()


def test_a_scaled_loss_in_float16_does_not_overflow() -> None:
    pairs = [(torch.full((4, 5), 200.0).half(), torch.full((4, 7), 400.0).half())]
    gradients = domain_gradients(pairs, Scratch())
    assert torch.equal(gradients, torch.full((1, 7, 5), 320_000.0))
