"""The loss of a micro-batch by an objective, from what it asks of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..loss.heads import SplitModel, split_causal_lm, verify_split
from .domains import DomainBatch, Weights
from .settings import DomainTokens, Evidence, Objective


class DomainObjective:
    """The loss of an objective.

    Args:
        objective: the method.
        model: unwrapped, a causal language model with or without adapters.
        by: what domains weigh by.
        autocast: the context that the training forward runs in.

    Attributes:
        split: hidden states and output head, where it takes them itself; errors are
            `split_causal_lm`'s.
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        by: Weights = "equal",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.objective, self.by, self._autocast = objective, by, autocast
        self.split: SplitModel | None = None
        if objective.needs_tokens:
            self.split = split_causal_lm(model, type(objective).__name__, "choose another method")
        self._is_verified = False
        self._hidden: list[Tensor] = []

    def verify(self, input_ids: Tensor) -> None:
        """Checks once that hidden states and head make the model's logits, if they are needed."""
        if self.split is not None and not self._is_verified:
            verify_split(self.split, input_ids[:1, :8], self._autocast)
            self._is_verified = True

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keeps what the output head sees of the forward pass inside, if the method needs it."""
        self._hidden = []
        if self.split is None:
            yield
            return
        hook = self.split.backbone.register_forward_hook(
            lambda _module, _args, output: self._hidden.append(output.last_hidden_state)
        )
        try:
            yield
        finally:
            hook.remove()

    def __call__(
        self, losses: Tensor, entropies: Tensor, labels: Tensor, batch: DomainBatch, step: int
    ) -> Tensor:
        """The objective of a micro-batch, (), from the fields of `Evidence`; labels are (batch,
        tokens), -100 where there is no loss."""
        hidden, self._hidden = self._hidden, []
        tokens = self._tokens(self.split, hidden[0], labels, batch) if self.split else ()
        weights, counts = batch.weights(self.by).to(losses), batch.counts.to(losses)
        return self.objective(Evidence(losses, entropies, weights, counts, step, tokens))

    def _tokens(
        self, split: SplitModel, hidden: Tensor, labels: Tensor, batch: DomainBatch
    ) -> list[DomainTokens]:
        """Loss tokens of each domain, with full logits, of (batch, tokens, H) hidden states."""
        targets = labels[:, 1:]
        rows, places = torch.nonzero(targets != -100, as_tuple=True)
        order = batch.domains[rows].argsort(stable=True)
        sizes = [int(count) for count in batch.host.counts]
        parts = (torch.split(index[order], sizes) for index in (rows, places))
        result = []
        for row, place in zip(*parts, strict=True):
            states = hidden[row, place]
            with self._autocast():
                logits = split.head(states)
            result.append(DomainTokens(states, logits, targets[row, place]))
        return result
