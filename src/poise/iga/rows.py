"""What IGA adds to TRL's preparation of rows: one end for each, and a word on those that go."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from transformers import PreTrainedTokenizerBase

from .batches import DOMAIN, SET

logger = logging.getLogger(__name__)


class OneEnd:
    """A tokenizer that appends its end to every text, without that end; else as it is.

    TRL writes the end behind a completion itself, and tells where the completion begins from the
    prompt's tokens alone; another end would be taught twice, and would close every prompt.

    Args:
        tokenizer: of which texts are made tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str) -> dict[str, Any]:
        result = dict(self.tokenizer(text=text))
        end, ids = self.tokenizer.eos_token, result["input_ids"]
        # Some append it only where the text has none.
        written = text.endswith(end) and ids[-2:] != 2 * [self.tokenizer.eos_token_id]
        return result if written else {name: values[:-1] for name, values in result.items()}

    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's, whose templates write every end themselves."""
        return self.tokenizer.apply_chat_template(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's."""
        return self.tokenizer.decode(*args, **kwargs)


def with_one_end(tokenizer: Any) -> Any:
    """The tokenizer, as a `OneEnd` where it gives texts an end that is not in them."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer.eos_token is None:
        return tokenizer
    appends = tokenizer(text="a")["input_ids"][-1:] == [tokenizer.eos_token_id]
    return OneEnd(tokenizer) if appends else tokenizer


def tell_lost_rows(before: Any, after: Any, name: str, max_length: int | None) -> None:
    """Says how many rows the preparation has left out, and what that does to their sets.

    Args:
        before, after: data sets; both with `isomer_id` and `domain` where they are for training.
        name: what the user calls them.
        max_length: TRL's.

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
    broken = sum(0 < left[isomer] < size for isomer, size in sizes.items())
    if broken:
        logger.warning(
            "%s: so %d isomer sets lack domains that they had (rows lost: %s), and are compared "
            "without; raise max_length to keep them whole.",
            name,
            broken,
            ", ".join(f"{count} of {domain!r}" for domain, count in lost.most_common()),
        )
