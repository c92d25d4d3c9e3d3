"""Which rows of a batch belong to which domain, and what their losses weigh."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class DomainBatch:
    """What the engine has to know of a (micro-)batch, whose loss is share * sum_k w_k L_k.

    L_k is the mean loss over the n_k loss tokens of domain k. Domains without tokens are missing,
    and have no weight; the others weigh w_k = 1 / (domains present), or n_k / n by tokens.

    Args:
        domains: (batch,) domain of each sequence, 0 to K - 1.
        counts: (K,) numbers n_k of loss tokens (or of whatever the domain's mean is over).
        share: factor of the whole, e.g. 1 / micro-batches, times a gradient scaler's scale.
        by_tokens: weights by tokens, as plain fine-tuning has them.

    Raises:
        ValueError: no sequence or no token, a domain outside 0 to K - 1, a domain with tokens and
            without sequences, a share that is not above 0.
    """

    domains: Tensor
    counts: Tensor
    share: float = 1.0
    by_tokens: bool = False

    def __post_init__(self) -> None:
        domains, counts = self.domains.cpu(), self.counts.cpu()
        number = counts.numel()
        if domains.dim() != 1 or counts.dim() != 1 or not domains.numel():
            raise ValueError(
                "domains, counts: expected shapes (batch,) and (K,), found "
                f"{tuple(domains.shape)} and {tuple(counts.shape)}"
            )
        if int(domains.min()) < 0 or int(domains.max()) >= number:
            raise ValueError(
                f"domains: expected numbers from 0 to {number - 1}, found "
                f"{int(domains.min())} to {int(domains.max())}"
            )
        if not bool((counts > 0).any()):
            raise ValueError("counts: expected loss tokens in at least one domain, found none")
        absent = (counts > 0) & (torch.bincount(domains, minlength=number) == 0)
        if bool(absent.any()):
            raise ValueError(
                f"counts: expected no tokens for domains without sequences, found some for "
                f"{torch.nonzero(absent).flatten().tolist()}"
            )
        if not self.share > 0:
            raise ValueError(f"share: expected a number above 0, found {self.share!r}")

    @cached_property
    def weights(self) -> Tensor:
        """(K,) float64 weights w_k on the CPU; they add up to 1."""
        return domain_weights(self.counts.cpu(), by_tokens=self.by_tokens)

    @cached_property
    def rows(self) -> dict[int, Tensor | slice]:
        """(n,) places in the batch of each present domain's sequences; a slice where they are
        neighbours, which spares a copy of what every layer saw."""
        present = torch.nonzero(self.weights).flatten().tolist()
        return {k: _as_slice(torch.nonzero(self.domains == k).flatten()) for k in present}

    @cached_property
    def units(self) -> dict[int, float]:
        """Factors from the batch loss's gradient to that of each L_k: 1 / (share * w_k)."""
        return {k: 1.0 / (self.share * float(self.weights[k])) for k in self.rows}


def domain_weights(counts: Tensor, *, by_tokens: bool) -> Tensor:
    """(K,) float64: equal over the domains that have tokens, or by tokens; they add up to 1."""
    weights = counts.double() if by_tokens else (counts > 0).double()
    return weights / weights.sum()


def _as_slice(places: Tensor) -> Tensor | slice:
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else places


def _by_sequence(values: Tensor, batch: int, lengths: Collection[int], layer: str) -> Tensor:
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
    number = len(batch.domains)
    split = [[_by_sequence(t, number, lengths, layer) for t in pair] for pair in pairs]
    result = []
    for rows in batch.rows.values():
        parts = [[t[rows].reshape(-1, t.shape[-1]) for t in pair] for pair in split]
        x, delta = (c[0] if len(c) == 1 else torch.cat(c) for c in zip(*parts, strict=True))
        result.append((x, delta))
    return result
