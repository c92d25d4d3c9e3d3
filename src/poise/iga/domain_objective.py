"""An objective over domains in the place of the host's loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..loss.heads import Purpose, split_causal_lm, verify_split
from .domain_loss import MicroBatch
from .method import DomainTokens, Evidence, Objective


class DomainObjective:
    """An objective, and what it has to know of the model.

    Args:
        objective: the method.
        model: unwrapped, a causal language model with or without adapters.
        autocast: the context that the training forward runs in.

    Raises:
        ValueError: the objective needs hidden states and logits, and the model has no output head
            apart from its backbone.
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.objective = objective
        purpose = Purpose(type(objective).__name__, "choose another method")
        self._split = split_causal_lm(model, purpose) if objective.needs_tokens else None
        self._autocast = autocast
        self._is_verified = False

    def watch(self, model: Any, batch: MicroBatch, step: int) -> ObjectiveModel:
        """What stands for the model in the host's loss of one micro-batch.

        Args:
            model: the host's, wrapped or not.
            batch: domains of its rows.
            step: optimizer steps before this one.
        """
        return ObjectiveModel(self, model, batch, step)

    @contextmanager
    def hidden_states(self, inputs: dict[str, Any]) -> Iterator[list[Tensor]]:
        """Keeps what the output head sees of the forward pass inside, where the method needs it.

        Raises:
            ValueError: the model does something to its logits that is not known here.
        """
        seen: list[Tensor] = []
        if self._split is None:
            yield seen
            return
        if not self._is_verified:
            verify_split(self._split, inputs["input_ids"][:1, :8], self._autocast)
            self._is_verified = True
        hook = self._split.backbone.register_forward_hook(
            lambda _module, _args, output: seen.append(output.last_hidden_state)
        )
        try:
            yield seen
        finally:
            hook.remove()

    def tokens(self, hidden: Tensor, labels: Tensor, batch: MicroBatch) -> list[DomainTokens]:
        """Loss tokens of each domain, with full logits.

        Args:
            hidden: (batch, tokens, H).
            labels: (batch, tokens), -100 where there is no loss.
            batch: domains of the rows.
        """
        assert self._split is not None
        targets = labels[:, 1:]
        rows, places = torch.nonzero(targets != -100, as_tuple=True)
        order = batch.domains[rows].argsort(stable=True)
        rows, places = rows[order], places[order]
        sizes = [int(count) for count in batch.host.counts]
        result = []
        parts = (torch.split(index, sizes) for index in (rows, places))
        for row, place in zip(*parts, strict=True):
            states = hidden[row, place]
            with self._autocast():
                logits = self._split.head(states)
            result.append(DomainTokens(states, logits, targets[row, place]))
        return result


class ObjectiveModel:
    """Stands for the model in the host's loss: the objective takes the place of the tokens' losses.

    The host adds up log-probabilities, 0 on ignored positions, and divides; what it is given is one
    number, of which its mean is share * objective.
    """

    def __init__(self, owner: DomainObjective, model: Any, batch: MicroBatch, step: int) -> None:
        self.row_losses: Tensor | None = None  # (batch,) sums over tokens, unweighted
        self.total: Tensor | None = None  # () sum of what the host's loss is made of
        self._owner, self._model, self._batch, self._step = owner, model, batch, step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._owner.hidden_states(kwargs) as hidden:
            outputs = self._model(*args, **kwargs)
        if kwargs.get("fused_lm_head"):
            self.row_losses = -outputs.log_probs.detach().float().sum(1)
            if not self._batch.is_empty:
                evidence = self._evidence(outputs, hidden, kwargs["labels"])
                value = self._owner.objective(evidence) * self._batch.whole
                outputs.log_probs = -value.view(1)
            self.total = -outputs.log_probs.detach().sum()
        return outputs

    def _evidence(self, outputs: Any, hidden: list[Tensor], labels: Tensor) -> Evidence:
        batch, like = self._batch, outputs.log_probs
        domains, counts = batch.domains.to(like.device), batch.counts.to(like)

        def mean(per_token: Tensor) -> Tensor:
            sums = torch.zeros_like(counts).index_add(0, domains, per_token.sum(1))
            return sums / counts.clamp(min=1)

        return Evidence(
            losses=mean(-outputs.log_probs),
            entropies=mean(outputs.entropy),
            weights=batch.for_engine.weights.to(like),
            counts=counts,
            step=self._step,
            tokens=self._owner.tokens(hidden[0], labels, batch) if hidden else (),
        )
