"""Domains of a batch: weights, units, and the parts of a layer's inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.iga.domains import DomainBatch, OnHost, tokens_by_domain

COUNTS = torch.tensor([4, 0, 12])
BATCH = DomainBatch(torch.tensor([2, 0, 2, 1]), COUNTS, share=0.5)


def test_domains_with_tokens_weigh_equally_or_by_tokens() -> None:
    host = OnHost((), (4.0, 0.0, 12.0))
    assert host.weights(by_tokens=False) == {0: 0.5, 2: 0.5}
    assert host.weights(by_tokens=True) == {0: 0.25, 2: 0.75}
    assert BATCH.weights.tolist() == [0.5, 0.0, 0.5]
    assert DomainBatch(BATCH.domains, COUNTS, by_tokens=True).weights.tolist() == [0.25, 0.0, 0.75]


def test_a_domain_without_tokens_is_missing() -> None:
    places = torch.arange(4)
    assert {k: places[rows].tolist() for k, rows in BATCH.rows.items()} == {0: [1], 2: [0, 2]}


def test_units_undo_share_and_weight() -> None:
    assert BATCH.units == {0: 4.0, 2: 4.0}
    by_tokens = DomainBatch(BATCH.domains, COUNTS, share=2.0, by_tokens=True)
    assert by_tokens.units == {0: 2.0, 2: pytest.approx(1 / 1.5)}


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 2, 3, 5), (12, 5), (4, 5)])
def test_each_domain_gets_its_own_tokens(shape: tuple[int, ...]) -> None:
    x, delta = torch.randn(shape), torch.randn(*shape[:-1], 2)
    found = tokens_by_domain([(x, delta)], BATCH, {1, 3}, "layer")
    for rows, pair in zip(([1], [0, 2]), found, strict=True):
        for part, whole in zip(pair, (x, delta), strict=True):
            by_sequence = whole.reshape(4, -1, whole.shape[-1])[rows]
            torch.testing.assert_close(part, by_sequence.flatten(0, 1))


def test_uses_of_a_layer_are_joined() -> None:
    pairs = [(torch.randn(4, n, 5), torch.randn(4, n, 2)) for n in (3, 1)]
    ((x, delta), _) = tokens_by_domain(pairs, BATCH, {1, 3}, "layer")
    torch.testing.assert_close(x, torch.cat([pairs[0][0][1], pairs[1][0][1]]))
    torch.testing.assert_close(delta, torch.cat([pairs[0][1][1], pairs[1][1][1]]))


@pytest.mark.parametrize("shape", [(1, 12, 5), (3, 4, 5), (7, 5), (2, 5), (8, 5)])
def test_inputs_that_do_not_keep_sequences_apart_are_refused(shape: tuple[int, ...]) -> None:
    """Packed rows, padding-free batches, tokens routed to experts."""
    pair = (torch.randn(shape), torch.randn(*shape[:-1], 2))
    with pytest.raises(ValueError, match=r"mlp.up: expected inputs of shape \(batch = 4.*packing"):
        tokens_by_domain([pair], BATCH, {1, 3}, "mlp.up")


@pytest.mark.parametrize(
    ("domains", "counts", "settings", "message"),
    [
        ([], [3], {}, "domains, counts: expected shapes"),
        ([[0, 1]], [3, 3], {}, r"domains, counts: expected shapes .* found \(1, 2\)"),
        ([0], [[3]], {}, "domains, counts: expected shapes"),
        ([0, 2], [3, 3], {}, "expected numbers from 0 to 1, found 0 to 2"),
        ([-1, 1], [3, 3], {}, "expected numbers from 0 to 1, found -1 to 1"),
        ([0, 1], [0, 0], {}, "expected loss tokens in at least one domain, found none"),
        ([0, 0], [3, 3], {}, r"no tokens for domains without sequences, found some for \[1\]"),
        ([0], [3], {"share": 0.0}, "share: expected a number above 0, found 0.0"),
        ([0], [3], {"share": float("nan")}, "share: expected a number above 0, found nan"),
    ],
)
def test_batches_that_make_no_sense_are_refused(
    domains: Any, counts: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DomainBatch(_tensor(domains), _tensor(counts), **settings)


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
