"""Batches of whole isomer sets: sampled as sets, collated as sequences with their domains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

SET, DOMAIN = "isomer_id", "domain"
_TENSORS = ("input_ids", "labels")

Row = dict[str, Any]


class IsomerSets(Dataset[list[Row]]):
    """Tokenised rows, an item being one isomer set.

    So a sampler draws sets, and epochs, sharding over ranks and resuming count in sets.

    Args:
        rows: a `datasets.Dataset` with `isomer_id`, `domain`, `input_ids` and `labels`.
        domains: names of the domains, in the order of their numbers.

    Attributes:
        rows: these, to look at or to evaluate on.
    """

    def __init__(self, rows: Any, domains: Sequence[str]) -> None:
        numbers = {name: number for number, name in enumerate(domains)}
        names = rows[DOMAIN]
        members: dict[Any, list[tuple[int, int]]] = {}
        for place, (isomer, name) in enumerate(zip(rows[SET], names, strict=True)):
            members.setdefault(isomer, []).append((numbers[name], place))
        self.domains = tuple(domains)
        self.rows = rows
        self._rows = rows.select_columns(list(_TENSORS))
        self._sets = [sorted(places) for places in members.values()]

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, index: Any) -> Any:
        """The set's rows by the number of their domain; of several places a list of sets; of a
        column's name its values, row by row."""
        if isinstance(index, str):
            return self.rows[index]
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if isinstance(index, Sequence):
            return [self[place] for place in index]
        places = self._sets[index]
        columns = self._rows[[place for _, place in places]]
        return [
            {DOMAIN: domain} | {name: columns[name][i] for name in _TENSORS}
            for i, (domain, _) in enumerate(places)
        ]

    def __getattr__(self, name: str) -> Any:
        """What a `datasets.Dataset` has and this has not is said to be had by `rows`."""
        raise AttributeError(
            f"{name!r}: these are isomer sets, a batch's items, and no datasets.Dataset; their "
            "tokenised rows are one, under .rows"
        )

    @property
    def column_names(self) -> list[str]:
        """Of the tokenised rows."""
        return list(self.rows.column_names)

    @property
    def sequences(self) -> int:
        """Rows of all sets together."""
        return len(self._rows)


class IsomerCollator:
    """Flattens sets into one batch of sequences, and adds `domain`: (batch,) numbers.

    Rows are sorted by domain, so that what the engine takes apart are slices and no copies.

    Single rows, as an evaluation has them, go to the host's collator as they are.

    Args:
        collate: the host's collator of rows.
    """

    def __init__(self, collate: Callable[[list[Row]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, features: list[Any]) -> dict[str, Any]:
        if isinstance(features[0], dict):
            return self.collate(features)
        rows = rows_by_domain(features)
        batch = self.collate([{name: row[name] for name in _TENSORS} for row in rows])
        batch[DOMAIN] = torch.tensor([row[DOMAIN] for row in rows])
        return batch


def rows_by_domain(sets: Sequence[Sequence[Row]]) -> list[Row]:
    """The sets' rows by domain; within a domain in the order of the sets."""
    return sorted((row for members in sets for row in members), key=lambda row: int(row[DOMAIN]))


def loss_tokens(labels: Tensor, domains: Tensor, number: int) -> Tensor:
    """(K,) how many tokens of each domain have a loss.

    Args:
        labels: (batch, tokens), -100 where there is none; the first token of a row is never
            predicted.
        domains: (batch,) numbers of the rows' domains.
        number: K.
    """
    tokens = (labels[:, 1:] != -100).sum(1)
    return tokens.new_zeros(number).index_add_(0, domains.to(tokens.device), tokens)


def predicting(labels: Tensor) -> Tensor:
    """Tokens at which a loss token is predicted, (batch, tokens): each one's before it."""
    next_labels = labels.roll(-1, 1)
    next_labels[:, -1] = -100
    return next_labels != -100
