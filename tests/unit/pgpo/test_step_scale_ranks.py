"""Two ranks with half of the batch each take the steps of one rank with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from poise import StepScale
from poise.pgpo.signal import information_sum
from poise.pgpo.viscosity import Viscosity
from tests.processes import run_ranks

BATCH = 8
# Which of the batch's sequences keep tokens: all; those of rank 0 alone; some; none.
KEPT = ([1] * 8, [1] * 4 + [0] * 4, [1, 0, 0, 0, 1, 1, 1, 0], [0] * 8)


def _batch(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, information per token (larger on rank 1's half), and its mask."""
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(BATCH, 5, dtype=torch.float64, generator=generator)
    information = torch.randn(BATCH, 6, dtype=torch.float64, generator=generator) * 0.3
    information[BATCH // 2 :] += 0.5
    mask = torch.rand(BATCH, 6, generator=generator) < 0.7
    mask[:, 0] = True
    return inputs, information, mask & torch.tensor(KEPT[step]).bool()[:, None]


def _train(rank: int, ranks: int) -> tuple[list[Tensor], list[tuple[float | None, float]]]:
    """Weights and records of four steps on this rank's part of the batches."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    scale = StepScale(optimizer, Viscosity(rho_min=0.05, reference="initial", reference_steps=2))
    wrapped = DistributedDataParallel(model) if ranks > 1 else model
    records = []
    for step in range(len(KEPT)):
        part = slice(rank * BATCH // ranks, (rank + 1) * BATCH // ranks)
        inputs, information, mask = (tensor[part] for tensor in _batch(step))
        if mask.any():  # else the rank observes nothing at all
            scale.observe(information_sum(information, mask))
        optimizer.zero_grad()
        wrapped(inputs).square().mean().backward()
        optimizer.step()
        records.append((scale.last.signal, scale.last.multiplier))
    return [p.detach().clone() for p in model.parameters()], records


def _rank_main(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.save(_train(rank, 2), f"{folder}/rank{rank}.pt")


def test_two_gloo_ranks_are_one_rank(tmp_path: Path) -> None:
    run_ranks(2, _rank_main, str(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    weights, records = _train(0, 1)
    # The first step defines the reference, the last has no signal.
    assert [rho != 1 for _, rho in records] == [False, True, True, False]
    for rank_weights, rank_records in ranks:
        for found, expected in zip(rank_weights, weights, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
        for (signal, rho), (expected_signal, expected_rho) in zip(
            rank_records, records, strict=True
        ):
            assert rho == pytest.approx(expected_rho, rel=1e-12)
            assert (signal is None) == (expected_signal is None)
    assert all(map(torch.equal, ranks[0][0], ranks[1][0]))
    assert ranks[0][1] == ranks[1][1]
