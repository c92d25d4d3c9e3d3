"""The loss of a micro-batch: sum_k w_k L_k of the model's log-probabilities, or an objective's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..loss.heads import SplitModel, split_causal_lm, verify_split
from .domains import DomainBatch, Weights
from .method import DomainTokens, Evidence, Objective


def describe(labels: Tensor, domains: Tensor, number: int) -> DomainBatch:
    """What the loss and the engine have to know of a micro-batch, whose rows are of K domains.

    Labels are (batch, tokens), -100 where there is no loss; a row's first token is never predicted,
    each other one at the token before it.
    """
    following = labels.roll(-1, 1)
    following[:, -1] = -100
    is_predicting = following != -100
    tokens = is_predicting.sum(1)
    counts = tokens.new_zeros(number).index_add_(0, domains.to(tokens.device), tokens)
    return DomainBatch(domains, counts, is_predicting)


class Share(NamedTuple):
    """A micro-batch's part of the step.

    Args:
        own: factor of sum_k w_k L_k in the loss that `compute_loss` returns.
        later: what transformers multiplies that by before it differentiates.
    """

    own: float
    later: float


def share_of(
    batch: DomainBatch, by: Weights, items: float | None, world: int, steps: int, scale: float
) -> Share:
    """A micro-batch's part of the step, averaged over ranks as TRL averages.

    Equal weights: 1 / micro-batches. By tokens: n_m * ranks / n, with n_m of the step's n tokens.

    Args:
        batch: the micro-batch.
        by: what domains weigh by.
        items: n, of all micro-batches and ranks; None if transformers has not counted them, which
            then divides by the micro-batches itself.
        world: ranks that `items` is counted over and gradients are averaged over, else 1.
        steps: micro-batches of the step.
        scale: of a gradient scaler.
    """
    if items is None:
        return Share(1.0, scale / steps)
    if by == "equal":
        return Share(1 / steps, scale)
    return Share(sum(batch.host.counts) * world / items, scale)


def domain_means(per_token: Tensor, batch: DomainBatch) -> Tensor:
    """(K,) means over each domain's loss tokens; 0 for a domain without.

    Args:
        per_token: (batch, tokens), 0 where there is no loss.
        batch: the rows' domains.
    """
    zero, rows = per_token.new_zeros(()), batch.rows
    sums = [per_token[rows[k]].sum() if k in rows else zero for k in range(len(batch.counts))]
    return torch.stack(sums) / batch.counts.to(zero).clamp(min=1)


class DomainObjective:
    """The loss of an objective, from what it asks of the model.

    Args:
        objective: the method.
        model: unwrapped, a causal language model with or without adapters.
        by: what domains weigh by.
        autocast: the context that the training forward runs in.

    Raises:
        ValueError: the objective needs hidden states and logits, and the model has no output head
            apart from its backbone.
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        by: Weights = "equal",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.objective, self.by = objective, by
        self._split: SplitModel | None = None
        if objective.needs_tokens:
            name = type(objective).__name__
            self._split = split_causal_lm(model, name, "choose another method")
        self._autocast = autocast
        self._is_verified = False
        self._hidden: list[Tensor] = []

    @property
    def has_head(self) -> bool:
        """Whether it takes hidden states and the output head itself."""
        return self._split is not None

    def verify(self, input_ids: Tensor) -> None:
        """Checks once that hidden states and head make the model's logits, if they are needed.

        Raises:
            ValueError: the model does something to its logits that is not known here.
        """
        if self._split is not None and not self._is_verified:
            verify_split(self._split, input_ids[:1, :8], self._autocast)
            self._is_verified = True

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keeps what the output head sees of the forward pass inside, if the method needs it."""
        if self._split is None:
            yield
            return
        self._hidden = []
        hook = self._split.backbone.register_forward_hook(
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
        tokens = self._tokens(hidden[0], labels, batch) if hidden else ()
        weights, counts = batch.weights(self.by).to(losses), batch.counts.to(losses)
        return self.objective(Evidence(losses, entropies, weights, counts, step, tokens))

    def _tokens(self, hidden: Tensor, labels: Tensor, batch: DomainBatch) -> list[DomainTokens]:
        """Loss tokens of each domain, with full logits, of (batch, tokens, H) hidden states."""
        assert self._split is not None
        targets = labels[:, 1:]
        rows, places = torch.nonzero(targets != -100, as_tuple=True)
        order = batch.domains[rows].argsort(stable=True)
        sizes = [int(count) for count in batch.host.counts]
        parts = (torch.split(index[order], sizes) for index in (rows, places))
        result = []
        for row, place in zip(*parts, strict=True):
            states = hidden[row, place]
            with self._autocast():
                logits = self._split.head(states)
            result.append(DomainTokens(states, logits, targets[row, place]))
        return result
