"""A micro-batch's loss by domains equals the formula, however the host averages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from poise.iga.domain_loss import DomainLosses, MicroBatch, Normalisation, WatchedModel

DOMAINS = torch.tensor([0, 2, 0, 2, 2])  # domain 1 is missing
TOKENS = torch.tensor([3, 1, 2, 4, 0])
COUNTS = torch.tensor([5, 0, 5])
LOG_PROBS = -torch.arange(1.0, 21.0).view(5, 4) * (torch.arange(4) < TOKENS[:, None])

NORMALISATIONS = {
    "one step": Normalisation(items=10.0),
    "micro-batches": Normalisation(items=37.0, steps=4),
    "ranks": Normalisation(items=37.0, world=2, steps=3),
    "not counted": Normalisation(items=None, steps=3),
}


def _host_loss(model: Any, norm: Normalisation) -> Tensor:
    """TRL's, with what transformers divides by afterwards."""
    outputs = model(fused_lm_head=True)
    items = TOKENS.sum() if norm.items is None else norm.items
    loss: Tensor = -outputs.log_probs.sum() / items * norm.world
    return loss / norm.steps if norm.items is None else loss


def _host_model(**kwargs: Any) -> Any:
    return SimpleNamespace(log_probs=LOG_PROBS.clone())


def _means() -> Tensor:
    sums = torch.zeros(3).index_add_(0, DOMAINS, -LOG_PROBS.sum(1))
    return sums / COUNTS.clamp(min=1)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_equal_weights_make_the_mean_of_the_domains_means(name: str) -> None:
    norm = NORMALISATIONS[name]
    batch = MicroBatch(DOMAINS, COUNTS, norm, by_tokens=False)
    loss = _host_loss(WatchedModel(_host_model, batch.row_weights()), norm)
    expected = (_means()[0] + _means()[2]) / 2 / norm.steps
    torch.testing.assert_close(loss, expected)
    assert batch.share == pytest.approx(1 / norm.steps)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_by_tokens_the_hosts_loss_is_untouched_and_its_share_known(name: str) -> None:
    norm = NORMALISATIONS[name]
    batch = MicroBatch(DOMAINS, COUNTS, norm, by_tokens=True)
    assert batch.row_weights() is None
    loss = _host_loss(WatchedModel(_host_model, None), norm)
    assert torch.equal(loss, _host_loss(_host_model, norm))
    torch.testing.assert_close(loss, batch.share * (_means() * COUNTS / COUNTS.sum()).sum())


def test_a_gradient_scalers_scale_is_in_the_share() -> None:
    norm = Normalisation(items=10.0, scale=1024.0)
    for by_tokens in (True, False):
        assert MicroBatch(DOMAINS, COUNTS, norm, by_tokens).for_engine.share == 1024.0


def test_a_micro_batch_without_loss_has_no_weights() -> None:
    batch = MicroBatch(DOMAINS, torch.zeros(3), Normalisation(items=5.0), by_tokens=False)
    assert batch.is_empty
    assert batch.row_weights() is None


def test_the_model_is_watched_where_it_returns_log_probabilities_alone() -> None:
    watched = WatchedModel(lambda **kwargs: "logits", torch.ones(5))
    assert watched() == "logits"
    assert watched.row_losses is None


def test_logged_losses_are_unweighted_means_over_micro_batches() -> None:
    accelerator = SimpleNamespace(device="cpu", reduce=lambda values, reduction: values)
    losses = DomainLosses(3)
    batch = MicroBatch(DOMAINS, COUNTS, Normalisation(items=10.0), by_tokens=False)
    losses.add(-LOG_PROBS.sum(1), batch)
    restored = DomainLosses(3)
    restored.load_state_dict(losses.state_dict())
    restored.add(-LOG_PROBS.sum(1) * 3, batch)
    means = _means()
    first, missing, third = restored.pop(accelerator)
    assert [first, third] == pytest.approx([2 * float(means[0]), 2 * float(means[2])])
    assert missing is None
    assert restored.pop(accelerator) == [None, None, None]
