"""The loss of a micro-batch by domains, in terms of the host's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .domains import DomainBatch, OnHost, read_domains


@dataclass(frozen=True)
class Normalisation:
    """How the host averages, from which a micro-batch's part of the step follows.

    With `items` the host's loss of a micro-batch is world * sum / items, over the whole step's
    tokens; without, it is the micro-batch's mean, divided by the micro-batches afterwards.

    Args:
        items: loss tokens of the whole step, of all micro-batches and ranks; None if unknown.
        world: ranks over which gradients are averaged and `items` is counted, else 1.
        steps: micro-batches of the step.
        scale: of a gradient scaler.
    """

    items: float | None
    world: int = 1
    steps: int = 1
    scale: float = 1.0


@dataclass(frozen=True)
class MicroBatch:
    """Domains of a micro-batch's rows, and what the host's loss needs to weigh them.

    Args:
        domains: (batch,) numbers of the rows' domains.
        counts: (K,) loss tokens by domain.
        normalisation: the host's.
        by_tokens: weights by tokens, as the host has them; else equal over the domains present.
        predicting: (batch, tokens), which tokens the loss's are predicted at.
    """

    domains: Tensor
    counts: Tensor
    normalisation: Normalisation
    by_tokens: bool
    predicting: Tensor | None = None

    @cached_property
    def host(self) -> OnHost:
        """Domains and counts, for which the host waits once a micro-batch."""
        return read_domains(self.domains, self.counts)

    @property
    def is_empty(self) -> bool:
        """No loss at all."""
        return not self.host.present

    @property
    def share(self) -> float:
        """Factor of sum_k w_k L_k in the loss that is differentiated.

        By tokens: n_m * world / items, n_m the micro-batch's tokens; equal: 1 / micro-batches.
        """
        norm = self.normalisation
        if not self.by_tokens or norm.items is None:
            return norm.scale / norm.steps
        return norm.scale * sum(self.host.counts) * norm.world / norm.items

    @property
    def whole(self) -> float:
        """Factor of a value that turns the host's mean into share * value."""
        norm = self.normalisation
        if self.by_tokens or norm.items is None:
            return sum(self.host.counts)
        return norm.items / norm.world / norm.steps

    @cached_property
    def for_engine(self) -> DomainBatch:
        """What the engine has to know of it."""
        return DomainBatch(
            self.domains, self.counts, self.share, self.by_tokens, self.host, self.predicting
        )

    def row_weights(self) -> Tensor | None:
        """(batch,) factors of the rows' token losses that turn the host's mean into
        share * sum_k w_k L_k; None where the host's is that already.

        w_k / n_k * items / (world * steps) for a row of domain k, or w_k / n_k * n_m.
        """
        if self.by_tokens or self.is_empty:
            return None
        numbers, counts = self.host
        weights = self.host.weights(by_tokens=False)
        by_domain = {k: weight / counts[k] * self.whole for k, weight in weights.items()}
        rows = [by_domain.get(k, 0.0) for k in numbers]
        return torch.tensor(rows, dtype=torch.float32, device=self.domains.device)


class WatchedModel:
    """Stands for the model in the host's loss: weighs its rows and keeps their losses.

    Args:
        model: the host's, whose fused head returns log-probabilities, 0 on ignored positions.
        weights: (batch,) factors of the rows, or None.
    """

    def __init__(self, model: Any, weights: Tensor | None) -> None:
        self.row_losses: Tensor | None = None  # (batch,) sums over tokens, unweighted
        self.total: Tensor | None = None  # () sum of what the host's loss is made of
        self._model, self._weights = model, weights

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = self._model(*args, **kwargs)
        if kwargs.get("fused_lm_head"):
            self.row_losses = -outputs.log_probs.detach().float().sum(1)
            if self._weights is not None:
                outputs.log_probs = outputs.log_probs * self._weights.to(outputs.log_probs)[:, None]
            self.total = -outputs.log_probs.detach().sum()
        return outputs


class DomainLosses:
    """Mean losses by domain since they were last asked for.

    Args:
        number: K.
    """

    def __init__(self, number: int) -> None:
        self._sums = torch.zeros(2, number)  # losses, tokens

    def add(self, row_losses: Tensor, batch: MicroBatch) -> None:
        """Adds a micro-batch's (batch,) sums."""
        self._sums = self._sums.to(row_losses.device)
        self._sums[0].index_add_(0, batch.domains.to(row_losses.device), row_losses)
        self._sums[1] += batch.counts.to(row_losses)

    def pop(self, accelerator: Any) -> list[float | None]:
        """Means over all ranks; None for a domain without tokens."""
        sums = accelerator.reduce(self._sums.to(accelerator.device), reduction="sum").tolist()
        self._sums = torch.zeros_like(self._sums)
        return [loss / count if count else None for loss, count in zip(*sums, strict=True)]

    def state_dict(self) -> list[list[float]]:
        """As plain JSON values."""
        return [[float(x) for x in row] for row in self._sums.tolist()]

    def load_state_dict(self, state: list[list[float]]) -> None:
        """Takes `state_dict`'s."""
        self._sums = torch.tensor(state)
