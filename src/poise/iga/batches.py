"""Isomer sets on their way into a batch: rows prepared, sampled as sets, collated as sequences."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

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
        sequences: rows of all sets together.
    """

    def __init__(self, rows: Any, domains: Sequence[str]) -> None:
        self.rows, self.domains, self.sequences = rows, tuple(domains), len(rows)
        self.column_names: list[str] = rows.column_names
        self._rows = rows.select_columns(list(_TENSORS))
        members: dict[Any, list[tuple[int, int]]] = {}
        for place, (isomer, name) in enumerate(zip(rows[SET], rows[DOMAIN], strict=True)):
            members.setdefault(isomer, []).append((self.domains.index(name), place))
        self._sets = [sorted(places) for places in members.values()]

    def __len__(self) -> int:
        return len(self._sets)

    def __getitem__(self, index: Any) -> Any:
        """The set's rows by the number of their domain; of several places a list of sets; of a
        column's name its values, row by row."""
        if isinstance(index, str):
            return self.rows[index]
        if isinstance(index, slice):
            index = range(len(self))[index]
        if isinstance(index, Sequence):
            return [self[place] for place in index]
        places = self._sets[index]
        columns = self._rows[[place for _, place in places]]
        return [
            {DOMAIN: domain} | {name: columns[name][i] for name in _TENSORS}
            for i, (domain, _) in enumerate(places)
        ]


class IsomerCollator:
    """Flattens sets into one batch of sequences, and adds `domain`: (batch,) numbers.

    Rows are sorted by domain, so that what the engine takes apart are slices and no copies. Single
    rows, as an evaluation has them, go to TRL's `collate` as they are.
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


# Rows as TRL prepares them: one end for each, and a word on those that go.


class OneEnd:
    """A tokenizer that appends its end to every text, without that end; else as it is.

    TRL writes the end behind a completion itself, and tells where the completion begins from the
    prompt's tokens alone; another end would be taught twice, and would close every prompt.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        # Its templates write every end themselves.
        self.apply_chat_template, self.decode = tokenizer.apply_chat_template, tokenizer.decode

    def __call__(self, text: str) -> dict[str, Any]:
        result = dict(self.tokenizer(text=text))
        end, ids = self.tokenizer.eos_token, result["input_ids"]
        # Some append it only where the text has none.
        written = text.endswith(end) and ids[-2:] != 2 * [self.tokenizer.eos_token_id]
        return result if written else {name: values[:-1] for name, values in result.items()}


def with_one_end(tokenizer: Any) -> Any:
    """The tokenizer, as a `OneEnd` where it gives texts an end that is not in them."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer.eos_token is None:
        return tokenizer
    appends = tokenizer(text="a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    return OneEnd(tokenizer) if appends else tokenizer


def tell_lost_rows(before: Any, after: Any, name: str, max_length: int | None) -> None:
    """Says how many rows of a data set the preparation has left out, and what that does to sets.

    Raises:
        ValueError: no row is left.
    """
    if not len(after):
        raise ValueError(
            f"{name}: no row has a completion within max_length={max_length}; raise it"
        )
    if len(after) == len(before):
        return
    logger.warning(
        "%s: %d of %d rows have no completion left within max_length=%s and are left out.",
        name,
        len(before) - len(after),
        len(before),
        max_length,
    )
    if not {SET, DOMAIN} <= set(after.column_names):
        return
    lost = Counter(before[DOMAIN]) - Counter(after[DOMAIN])
    sizes, left = Counter(before[SET]), Counter(after[SET])
    if broken := sum(0 < left[isomer] < size for isomer, size in sizes.items()):
        logger.warning(
            "%s: so %d isomer sets lack domains that they had (rows lost: %s), and are compared "
            "without; raise max_length to keep them whole.",
            name,
            broken,
            ", ".join(f"{n} of {domain!r}" for domain, n in lost.most_common()),
        )
