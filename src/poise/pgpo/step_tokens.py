"""Some of a step's own tokens, on which it is measured how far the step moved the policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..loss.heads import evaluating, split_causal_lm
from ..loss.tiles import for_each_tile, kept_rows, tile_log_probs
from ..loss.token_statistics import tiled_token_logps


class _Rows(NamedTuple):
    prompt_ids: Tensor
    prompt_mask: Tensor
    completion_ids: Tensor
    completion_mask: Tensor
    kept: Tensor  # places of the loss's tokens in the flattened completions


class StepTokens:
    """Log-probabilities of some tokens of the step at hand, under the model as it is.

    Args:
        share: of the step's sequences that have a loss, in (0, 1]. They are taken at even
            distances in the order of the micro-batches, so that accumulation takes the same ones.
        exact: over the whole vocabulary, (N, V); else of the sampled tokens, (N,).
        limit: tokens at most, at even distances; (N, V) is held while the step is taken.
        temperature: divides the logits.
        autocast: the context that the training forward runs in.
    """

    def __init__(
        self,
        share: float,
        *,
        exact: bool,
        limit: int,
        temperature: float,
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._share, self._exact, self._limit = share, exact, limit
        self._temperature, self._autocast = temperature, autocast
        self._seen = 0
        self._rows: list[_Rows] = []

    def add(self, batch: dict[str, Tensor], loss_mask: Tensor) -> None:
        """Takes some sequences of a micro-batch.

        Args:
            batch: `prompt_ids`, `prompt_mask`, `completion_ids`, `completion_mask`, each (B, T).
            loss_mask: (B, T), which tokens of the completions the loss keeps.
        """
        with_loss = [i for i, flag in enumerate((loss_mask != 0).any(-1).tolist()) if flag]
        taken = [i for place, i in enumerate(with_loss, self._seen) if self._takes(place)]
        self._seen += len(with_loss)
        if taken:
            names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
            index = torch.tensor(taken, device=loss_mask.device)
            kept = loss_mask[index].flatten().nonzero().squeeze(1)
            self._rows.append(_Rows(**{name: batch[name][index] for name in names}, kept=kept))

    def _takes(self, place: int) -> bool:
        return math.ceil((place + 1) * self._share) > math.ceil(place * self._share)

    def forget(self) -> None:
        """The step is over."""
        self._seen, self._rows = 0, []

    @torch.no_grad()
    def log_probs(self, model: nn.Module) -> Tensor | None:
        """(N, V) or (N,) in nats; None where the loss keeps no token."""
        split = split_causal_lm(model)
        with evaluating(model), self._autocast():
            parts = [self._hidden(split, rows) for rows in self._rows]
            hidden = torch.cat([h for h, _ in parts]) if parts else torch.empty(0)
            if not len(hidden):
                return None
            tokens = torch.cat([t for _, t in parts])
            if len(hidden) > self._limit:
                places = torch.linspace(0, len(hidden) - 1, self._limit, device=hidden.device)
                hidden, tokens = hidden[places.long()], tokens[places.long()]
            if not self._exact:
                return tiled_token_logps(hidden, split.head, tokens, self._temperature)
            tiles: list[Tensor] = []

            def work(rows: Tensor) -> int:
                tiles.append(tile_log_probs(split.head, hidden[rows], self._temperature))
                return tiles[-1].shape[-1]

            for_each_tile(kept_rows(None, hidden), None, work)
        return torch.cat(tiles)

    @staticmethod
    def _hidden(split: Any, rows: _Rows) -> tuple[Tensor, Tensor]:
        ids = torch.cat([rows.prompt_ids, rows.completion_ids], 1)
        attention = torch.cat([rows.prompt_mask, rows.completion_mask], 1)
        hidden = split.hidden_states(ids, attention, rows.completion_ids.size(1))
        return hidden.flatten(0, 1)[rows.kept], rows.completion_ids.flatten()[rows.kept]
