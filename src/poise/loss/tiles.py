"""Walking over tokens in tiles: hidden states go through the output head a few rows at a time.

What :mod:`poise.loss.token_statistics` and :mod:`poise.loss.tiled` share. A tensor of tokens x
vocabulary is never held.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, H] to logits [n, V]: a module (adapters, soft-capping included) or function."""

_FIRST_TILE = 16


def default_tile_tokens(vocabulary: int, device: str = "cpu") -> int:
    """Tokens in a tile, n = max(1, floor(bytes / 4 V)).

    Choice: a tile's float32 logits take at most 24 MiB on the CPU and 64 MiB elsewhere (unless one
    token's do not fit). On one core with V = 49,152 and H = 576, tiles of 12 to 30 MiB are equally
    fast; tiles of 64 MiB take 1.4 (reverse KL) to 1.6 times (Jensen-Shannon) as long, because the C
    library's allocator maps such blocks anew each time. Accelerators keep their blocks, and want
    more rows for each launch (reasoned, not measured).
    """
    tile_bytes = (24 if device == "cpu" else 64) * 2**20
    return max(1, tile_bytes // (4 * vocabulary))


def for_each_tile(rows: Tensor, tile_tokens: int | None, work: Callable[[Tensor], int]) -> None:
    """Call ``work`` on consecutive parts of ``rows``; it returns the size of the vocabulary.

    Without ``tile_tokens`` the first part is small, because only the head tells how large the
    vocabulary is; the others have :func:`default_tile_tokens`.
    """
    size = tile_tokens or _FIRST_TILE
    start = 0
    while start < len(rows):
        vocabulary = work(rows[start : start + size])
        start += size
        size = tile_tokens or default_tile_tokens(vocabulary, rows.device.type)


def kept_rows(mask: Tensor | None, like: Tensor) -> Tensor:
    """Indices of the rows that a mask or weight [N] keeps: those where it is not zero."""
    if mask is None:
        return torch.arange(len(like), device=like.device)
    return mask.nonzero().squeeze(1)


def working_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of softmax and statistics: float32, or float64 for float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def tile_logits(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    """The head's logits [n, V] divided by the temperature, in :func:`working_dtype`.

    The head itself runs in its own precision or autocast's, as in the model's own forward.
    """
    logits = head(hidden)
    if logits.ndim != 2 or logits.shape[0] != hidden.shape[0]:
        raise ValueError(
            f"A head must map hidden states [n, H] to logits [n, V]: found {list(logits.shape)} "
            f"for {list(hidden.shape)}."
        )
    return logits.to(working_dtype(logits)) / temperature


def tile_log_probs(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [n, V], without a gradient."""
    with torch.no_grad():
        return tile_logits(head, hidden, temperature).log_softmax(-1)


def token_range(tokens: Tensor, rows: Tensor) -> range:
    """From the smallest to the largest token of the rows: one copy to the host for all tiles."""
    if len(rows) == 0:
        return range(0)
    low, high = torch.stack(tokens[rows].aminmax()).tolist()
    return range(low, high + 1)


def check_tokens(tokens: range, vocabulary: int) -> None:
    """Raise a ValueError where tokens are outside the vocabulary (padding, say)."""
    if tokens.start < 0 or tokens.stop > vocabulary:
        raise ValueError(
            f"tokens must lie in [0, {vocabulary}), found {tokens.start} to {tokens.stop - 1}. "
            "Give padding weight or mask zero, and tokens of the head's own vocabulary."
        )


def check_vocabularies(student: Tensor, teacher: Tensor) -> None:
    """Raise a ValueError where the heads of student and teacher differ in size."""
    if student.shape != teacher.shape:
        raise ValueError(
            "Student and teacher must share one vocabulary: expected logits of one shape, found "
            f"{list(student.shape)} and {list(teacher.shape)}."
        )


def check_rows(states: dict[str, Tensor], per_token: dict[str, Tensor | None]) -> None:
    """Raise a ValueError unless all tensors describe the same N tokens.

    Args:
        states: Named hidden states or logits, floating point [N, ...].
        per_token: Named values [N], ``tokens`` (int64) among them; None is left out.
    """
    tokens = per_token["tokens"]
    assert tokens is not None
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(
            f"tokens must be int64 of shape [N], found {tokens.dtype} {list(tokens.shape)}. "
            "Flatten batch and time first."
        )
    for name, tensor in states.items():
        if tensor.ndim != 2 or len(tensor) != len(tokens) or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating point of shape [{len(tokens)}, width], one row a token: "
                f"found {tensor.dtype} {list(tensor.shape)}."
            )
    for name, value in per_token.items():
        if value is not None and value.shape != tokens.shape:
            raise ValueError(
                f"{name} must have one value a token, shape {list(tokens.shape)}: found "
                f"{list(value.shape)}."
            )


def check_settings(temperature: float, tile_tokens: int | None) -> None:
    """Raise a ValueError unless temperature and tile size are positive."""
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive, found {temperature}.")
    if tile_tokens is not None and tile_tokens < 1:
        raise ValueError(
            f"tile_tokens must be at least 1, or None for the default: found {tile_tokens}."
        )
