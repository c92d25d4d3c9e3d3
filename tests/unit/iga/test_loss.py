"""A micro-batch's loss by domains equals the formula, however transformers averages."""

from __future__ import annotations

import pytest
import torch

from poise.iga.domains import DomainBatch, Weights, weigh_domains, weighted_sum
from poise.iga.trainer import share_of

DOMAINS = torch.tensor([0, 2, 0, 2, 2])  # domain 1 is missing
TOKENS = torch.tensor([3, 1, 2, 4, 0])
COUNTS = torch.tensor([5, 0, 5])
PER_TOKEN = torch.arange(1.0, 21.0).view(5, 4) * (torch.arange(4) < TOKENS[:, None])
BATCH = DomainBatch(DOMAINS, COUNTS)

# Tokens of the step, ranks, micro-batches.
AVERAGES: dict[str, tuple[float | None, int, int]] = {
    "one step": (10.0, 1, 1),
    "micro-batches": (37.0, 1, 4),
    "ranks": (37.0, 2, 3),
    "not counted": (None, 1, 3),
}


@pytest.mark.parametrize("by", ["equal", "tokens"])
@pytest.mark.parametrize("name", AVERAGES)
def test_the_loss_is_the_micro_batchs_part_of_the_step(name: str, by: Weights) -> None:
    items, world, steps = AVERAGES[name]
    own, later = share_of(BATCH, by, items, world, steps, scale=1024.0)
    weights = weigh_domains(BATCH.host.counts, by)
    loss = own * later * weighted_sum(weights, BATCH.means(PER_TOKEN))
    sums = torch.stack([PER_TOKEN[k == DOMAINS].sum() for k in (0, 2)])
    expected = (sums / 5).mean() / steps
    if by == "tokens" and items is not None:
        expected = sums.sum() / items * world
    torch.testing.assert_close(loss, 1024.0 * expected)
    assert later == 1024.0 / (steps if items is None else 1)  # transformers divides by itself


def test_a_domain_without_tokens_has_a_mean_of_zero() -> None:
    assert BATCH.means(PER_TOKEN)[1] == 0


def test_tokens_with_a_loss_are_counted_by_domain_without_the_first() -> None:
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8], [1, -100, -100], [-100, 2, -100]])
    batch = DomainBatch.of(labels, torch.tensor([0, 2, 1, 0]), 4)
    assert batch.counts.tolist() == [2, 0, 2, 0]
    assert batch.present == (0, 2)


def test_a_loss_token_is_predicted_at_the_one_before_it() -> None:
    labels = torch.tensor([[-100, -100, 5, 6], [7, -100, -100, 8], [-100, -100, -100, -100]])
    predicting = DomainBatch.of(labels, torch.zeros(3, dtype=torch.long), 1).predicting
    assert predicting is not None
    assert predicting.int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
