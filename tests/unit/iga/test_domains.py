"""Domains of a batch: weights, units, and the parts of a layer's inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from poise.iga.domains import DomainBatch, Pass, weigh_domains

COUNTS = torch.tensor([4, 0, 12])
BATCH = DomainBatch(torch.tensor([2, 0, 2, 1]), COUNTS)


def _pass(lengths: set[int]) -> Pass:
    watched = Pass(BATCH)
    watched.lengths = lengths
    return watched


def test_domains_with_tokens_weigh_equally_or_by_tokens() -> None:
    assert weigh_domains((4.0, 0.0, 12.0)) == {0: 0.5, 2: 0.5}
    assert weigh_domains((4.0, 0.0, 12.0), "tokens") == {0: 0.25, 2: 0.75}
    with pytest.raises(ValueError, match="weights: expected one of equal, tokens, found 'rows'"):
        weigh_domains((4.0,), "rows")  # type: ignore[arg-type]
    assert BATCH.weights().tolist() == [0.5, 0.0, 0.5]
    assert BATCH.weights("tokens").tolist() == [0.25, 0.0, 0.75]


def test_a_domain_without_tokens_is_missing() -> None:
    places = torch.arange(4)
    assert {k: places[rows].tolist() for k, rows in BATCH.rows.items()} == {0: [1], 2: [0, 2]}


def test_units_undo_share_and_weight() -> None:
    watched, losses = Pass(BATCH), torch.tensor([1.0, torch.nan, 3.0])
    assert watched.weigh(losses, share=0.5) == 1.0
    assert watched.units == {0: 4.0, 2: 4.0}
    watched = Pass(BATCH)
    assert watched.weigh(losses, "tokens", share=2.0, scale=4.0) == 5.0
    assert watched.units == {0: 0.5, 2: pytest.approx(1 / 6)}


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 2, 3, 5), (12, 5), (4, 5)])
def test_each_domain_gets_its_own_tokens(shape: tuple[int, ...]) -> None:
    """Over all uses of the layer."""
    uses = [(torch.randn(shape), torch.randn(*shape[:-1], 2)) for _ in range(2)]
    found = _pass({1, 3}).tokens_by_domain(uses, "layer")
    for rows, pair in zip(([1], [0, 2]), found, strict=True):
        for part, wholes in zip(pair, zip(*uses, strict=True), strict=True):
            own = [t.reshape(4, -1, t.shape[-1])[rows].flatten(0, 1) for t in wholes]
            torch.testing.assert_close(part, torch.cat(own))


@pytest.mark.parametrize("shape", [(1, 12, 5), (3, 4, 5), (7, 5), (2, 5), (8, 5)])
def test_inputs_that_do_not_keep_sequences_apart_are_refused(shape: tuple[int, ...]) -> None:
    """Packed rows, padding-free batches, tokens routed to experts."""
    pair = (torch.randn(shape), torch.randn(*shape[:-1], 2))
    with pytest.raises(ValueError, match=r"mlp.up: expected inputs of shape \(batch = 4.*packing"):
        _pass({1, 3}).tokens_by_domain([pair], "mlp.up")


@pytest.mark.parametrize(
    ("domains", "counts", "message"),
    [
        ([], [3], "domains, counts: expected shapes"),
        ([[0, 1]], [3, 3], r"domains, counts: expected shapes .* found \(1, 2\)"),
        ([0], [[3]], "domains, counts: expected shapes"),
        ([0, 2], [3, 3], "expected numbers from 0 to 1, found 0 to 2"),
        ([-1, 1], [3, 3], "expected numbers from 0 to 1, found -1 to 1"),
        ([0, 0], [3, 3], r"no tokens for domains without sequences, found some for \[1\]"),
    ],
)
def test_batches_that_make_no_sense_are_refused(domains: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainBatch(_tensor(domains), _tensor(counts))


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("domains", [0, 0, 1, 1], "list"),
        ("counts", (3, 3), "tuple"),
        ("counts", None, "NoneType"),
        ("predicting", [[1]], "list"),
    ],
)
def test_a_batch_is_made_of_tensors(name: str, value: Any, found: str) -> None:
    right: dict[str, Any] = {"domains": _tensor([0, 0, 1, 1]), "counts": _tensor([3, 3])}
    with pytest.raises(TypeError, match=rf"{name}: expected a tensor, found {found}; make it one"):
        DomainBatch(**right | {name: value})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_domains_are_whole_numbers(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"domains: expected whole numbers, found {dtype}"):
        DomainBatch(torch.tensor([0, 1]).to(dtype), torch.tensor([3, 3]))


@pytest.mark.parametrize("count", [-1.0, float("nan")])
def test_counts_are_numbers_of_tokens(count: float) -> None:
    with pytest.raises(ValueError, match=r"counts: expected numbers of tokens.*found \(3.0, "):
        DomainBatch(torch.tensor([0, 1]), torch.tensor([3.0, count]))


@pytest.mark.parametrize("shape", [(2,), (3, 5), (2, 5, 1)])
def test_predicting_has_a_row_for_each_sequence(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"predicting: expected shape \(batch = 2, tokens\)"):
        DomainBatch(torch.tensor([0, 1]), torch.tensor([3, 3]), torch.ones(shape))


def _tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.long)


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan")])
def test_a_share_is_above_zero(share: float) -> None:
    with pytest.raises(ValueError, match="share: expected a number above 0"):
        Pass(BATCH).weigh(torch.ones(3), share=share)


def test_losses_are_one_a_domain_and_of_some_tokens() -> None:
    with pytest.raises(ValueError, match=r"losses: expected shape \(3,\).*found \(4,\)"):
        Pass(BATCH).weigh(torch.ones(4))
    empty = DomainBatch(BATCH.domains, torch.zeros(3))
    with pytest.raises(ValueError, match="expected loss tokens in at least one domain"):
        Pass(empty).weigh(torch.ones(3))
