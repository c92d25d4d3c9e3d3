"""Which rows of a batch belong to which domain, and what their losses weigh."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class OnHost(NamedTuple):
    """Domains and counts as the host knows them, for which it has waited once.

    Args:
        domains: of each sequence.
        counts: loss tokens of each domain.
    """

    domains: tuple[int, ...]
    counts: tuple[float, ...]

    @property
    def present(self) -> tuple[int, ...]:
        """Domains that have tokens."""
        return tuple(k for k, count in enumerate(self.counts) if count > 0)

    def weights(self, *, by_tokens: bool) -> dict[int, float]:
        """w_k of the present domains: equal, or by tokens; they add up to 1."""
        total = sum(self.counts)
        return {
            k: self.counts[k] / total if by_tokens else 1 / len(self.present) for k in self.present
        }


def read_domains(domains: Tensor, counts: Tensor) -> OnHost:
    """Copies both to the host, at once.

    Raises:
        ValueError: no sequence or no domain, or other shapes than (batch,) and (K,).
    """
    if domains.dim() != 1 or counts.dim() != 1 or not domains.numel():
        raise ValueError(
            "domains, counts: expected shapes (batch,) and (K,), found "
            f"{tuple(domains.shape)} and {tuple(counts.shape)}"
        )
    values = torch.cat([domains.to(counts.device), counts.detach()]).tolist()
    number = len(domains)
    return OnHost(tuple(map(int, values[:number])), tuple(map(float, values[number:])))


@dataclass(frozen=True)
class DomainBatch:
    """What the engine has to know of a (micro-)batch, whose loss is share * sum_k w_k L_k.

    L_k is the mean loss over the n_k loss tokens of domain k. Domains without tokens are missing,
    and have no weight; the others weigh w_k = 1 / (domains present), or n_k / n by tokens.

    Args:
        domains: (batch,) domain of each sequence, 0 to K - 1, on the model's device.
        counts: (K,) numbers n_k of loss tokens (or of whatever the domain's mean is over).
        share: factor of the whole, e.g. 1 / micro-batches, times a gradient scaler's scale.
        by_tokens: weights by tokens, as plain fine-tuning has them.
        known: both as the host knows them, where it has read them before.
        predicting: (batch, tokens), which tokens the loss's are predicted at: the tokens before
            them, mostly. The direction space keeps their inputs' means apart from the others'.

    Raises:
        ValueError: no sequence or no token, a domain outside 0 to K - 1, a domain with tokens and
            without sequences, a share that is not above 0.
    """

    domains: Tensor
    counts: Tensor
    share: float = 1.0
    by_tokens: bool = False
    known: OnHost | None = None
    predicting: Tensor | None = None

    def __post_init__(self) -> None:
        numbers, counts = self.host
        if min(numbers) < 0 or max(numbers) >= len(counts):
            raise ValueError(
                f"domains: expected numbers from 0 to {len(counts) - 1}, found "
                f"{min(numbers)} to {max(numbers)}"
            )
        if not self.host.present:
            raise ValueError("counts: expected loss tokens in at least one domain, found none")
        if absent := [k for k in self.host.present if k not in numbers]:
            raise ValueError(
                f"counts: expected no tokens for domains without sequences, found some for {absent}"
            )
        if not self.share > 0:
            raise ValueError(f"share: expected a number above 0, found {self.share!r}")

    @cached_property
    def host(self) -> OnHost:
        """Domains and counts, for which the host has waited at most once."""
        return self.known or read_domains(self.domains, self.counts)

    @cached_property
    def weights(self) -> Tensor:
        """(K,) float64 weights w_k on the CPU, 0 for missing domains; they add up to 1."""
        every = [self.shares.get(k, 0.0) for k in range(len(self.host.counts))]
        return torch.tensor(every, dtype=torch.float64)

    @cached_property
    def shares(self) -> dict[int, float]:
        """Weights w_k of the present domains."""
        return self.host.weights(by_tokens=self.by_tokens)

    @cached_property
    def rows(self) -> dict[int, Tensor | slice]:
        """(n,) places in the batch of each present domain's sequences; a slice where they are
        neighbours, which spares a copy of what every layer saw."""
        places = {k: [i for i, d in enumerate(self.host.domains) if d == k] for k in self.shares}
        result: dict[int, Tensor | slice] = {
            k: slice(p[0], p[-1] + 1) for k, p in places.items() if p[-1] - p[0] + 1 == len(p)
        }
        if spread := {k: p for k, p in places.items() if k not in result}:
            flat = [place for p in spread.values() for place in p]
            every = torch.tensor(flat, device=self.domains.device)  # one copy for all of them
            result |= zip(
                spread, torch.split(every, [len(p) for p in spread.values()]), strict=True
            )
        return {k: result[k] for k in places}

    @cached_property
    def units(self) -> dict[int, float]:
        """Factors from the batch loss's gradient to that of each L_k: 1 / (share * w_k)."""
        return {k: 1.0 / (self.share * weight) for k, weight in self.shares.items()}


def by_sequence(values: Tensor, batch: int, lengths: Collection[int], layer: str) -> Tensor:
    """A layer's inputs or output gradients as (batch, ..., features).

    Args:
        values: (batch, ..., features), or (batch * tokens, features).
        batch: sequences in the batch.
        lengths: numbers of tokens that a sequence has in this pass.
        layer: what an error calls it.

    Raises:
        ValueError: the layer does not keep sequences apart along its first dimension.
    """
    if values.shape[0] == batch:
        return values
    if values.dim() == 2 and len(values) in {batch * length for length in lengths}:
        return values.view(batch, -1, values.shape[-1])
    raise ValueError(
        f"{layer}: expected inputs of shape (batch = {batch}, ..., features), or (batch * tokens, "
        f"features) with tokens per sequence among {sorted(lengths)}, found {tuple(values.shape)}; "
        "layers that route or pack tokens (mixtures of experts, packing, padding-free batches) mix "
        "domains in a row: leave them out of target_modules, or set packing and padding_free off"
    )


def tokens_by_domain(
    pairs: Sequence[tuple[Tensor, Tensor]],
    batch: DomainBatch,
    lengths: Collection[int],
    layer: str,
) -> list[tuple[Tensor, Tensor]]:
    """Each present domain's inputs (n, in) and output gradients (n, out), over all uses of a layer.

    Args:
        pairs: inputs and output gradients of each use, (batch, ..., features) or
            (batch * tokens, features).
        batch: whose sequences they are.
        lengths: numbers of tokens that a sequence has in this pass, see `Hooks.lengths`.
        layer: what an error calls it.

    Raises:
        ValueError: the layer does not keep sequences apart along its first dimension.
    """
    number = len(batch.host.domains)
    split = [[by_sequence(t, number, lengths, layer) for t in pair] for pair in pairs]
    result = []
    for rows in batch.rows.values():
        parts = [[t[rows].reshape(-1, t.shape[-1]) for t in pair] for pair in split]
        x, delta = (c[0] if len(c) == 1 else torch.cat(c) for c in zip(*parts, strict=True))
        result.append((x, delta))
    return result
