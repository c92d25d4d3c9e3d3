"""Entropies, KL and log-probabilities of tokens, tile by tile and without a gradient."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from poise.loss.divergence import entropy, gather, relative_entropy
from poise.loss.tiles import (
    Head,
    check_rows,
    check_settings,
    check_tokens,
    check_vocabularies,
    for_each_tile,
    kept_rows,
    tile_log_probs,
    token_range,
    working_dtype,
)


@dataclass(frozen=True)
class TiledStatistics:
    """What a pass over the tokens reads: detached, [N], in nats, zero at skipped tokens.

    A token that has a policy term alone has ``student_logps`` alone.

    Attributes:
        student_entropy: H(S), the student's entropy over the whole vocabulary.
        teacher_entropy: H(T), the teacher's.
        kl: KL(S || T) over the whole vocabulary.
        student_logps: log S of the sampled tokens.
        teacher_logps: log T of the sampled tokens.
    """

    student_entropy: Tensor
    teacher_entropy: Tensor
    kl: Tensor
    student_logps: Tensor
    teacher_logps: Tensor

    @classmethod
    def zeros(cls, like: Tensor) -> TiledStatistics:
        """Statistics of ``len(like)`` tokens, all zero, in its working dtype and on its device."""
        return cls(*(zeros_per_token(like) for _ in range(5)))

    def view_as(self, other: Tensor) -> TiledStatistics:
        """The same values in the shape of ``other`` (N elements), e.g. that of a mask [B, T]."""
        names = (field.name for field in fields(TiledStatistics))
        return TiledStatistics(*(getattr(self, name).view_as(other) for name in names))

    @torch.no_grad()
    def write(self, rows: Tensor, log_s: Tensor, log_t: Tensor, tokens: Tensor) -> None:
        """Read a tile's log-probabilities [n, V] and put the values into ``rows`` [n]."""
        dtype = self.kl.dtype
        self.student_entropy[rows] = entropy(log_s).to(dtype)
        self.teacher_entropy[rows] = entropy(log_t).to(dtype)
        self.kl[rows] = relative_entropy(log_s, log_t).to(dtype)
        self.student_logps[rows] = gather(log_s, tokens).to(dtype)
        self.teacher_logps[rows] = gather(log_t, tokens).to(dtype)


def zeros_per_token(like: Tensor) -> Tensor:
    """Zeros [N] for the N rows of ``like``, in its working dtype and on its device."""
    return torch.zeros(len(like), dtype=working_dtype(like), device=like.device)


@torch.no_grad()
def token_statistics(
    student: Tensor,
    teacher: Tensor,
    tokens: Tensor,
    *,
    student_head: Head | None = None,
    teacher_head: Head | None = None,
    mask: Tensor | None = None,
    temperature: float = 1.0,
    tile_tokens: int | None = None,
) -> TiledStatistics:
    """Entropies, KL(student || teacher) and log-probabilities of sampled tokens.

    H(S) = -sum_v S_v log S_v and KL(S || T) = sum_v S_v log(S_v / T_v), with S and T the softmax of
    logits / temperature over the whole vocabulary.

    Args:
        student: Hidden states [N, H], or logits [N, V] where there is no ``student_head``.
        teacher: Hidden states [N, H'], or logits [N, V] where there is no ``teacher_head``.
        tokens: The sampled tokens, int64 [N].
        student_head: From the student's hidden states to logits; none for ready logits.
        teacher_head: The same for the teacher.
        mask: [N]; tokens where it is zero are skipped, and their statistics are zero.
        temperature: Divides the logits (1.0 for logits that are scaled already).
        tile_tokens: Tokens in a tile; by default :func:`~poise.loss.tiles.default_tile_tokens`.

    Returns:
        Statistics in nats, float32 (float64 where the student's input is).

    Raises:
        ValueError: Shapes, tokens, vocabularies or settings that cannot be.

    Choice: ready logits go through the same tiles, so that the statistics of a loss that is not
    ours cost a few tiles of temporaries, not a second set of tensors of tokens x vocabulary.
    """
    check_rows({"student": student, "teacher": teacher}, {"tokens": tokens, "mask": mask})
    check_settings(temperature, tile_tokens)
    statistics = TiledStatistics.zeros(student)
    kept = kept_rows(mask, student)
    found = token_range(tokens, kept)

    def work(rows: Tensor) -> int:
        log_s = tile_log_probs(student_head or _ready, student[rows], temperature)
        log_t = tile_log_probs(teacher_head or _ready, teacher[rows], temperature)
        check_vocabularies(log_s, log_t)
        check_tokens(found, log_s.shape[-1])
        statistics.write(rows, log_s, log_t, tokens[rows])
        return log_s.shape[-1]

    for_each_tile(kept, tile_tokens, work)
    return statistics


@torch.no_grad()
def tiled_token_logps(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    temperature: float = 1.0,
    tile_tokens: int | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Log-probabilities of given tokens, log softmax(head(h) / temperature)[y].

    Args:
        hidden: Hidden states h [N, H].
        head: From hidden states to logits.
        tokens: The tokens y, int64 [N].
        temperature: Divides the logits.
        tile_tokens: Tokens in a tile; by default :func:`~poise.loss.tiles.default_tile_tokens`.
        mask: [N]; tokens where it is zero are skipped and get zero.

    Returns:
        Log-probabilities [N] in nats, detached, float32 (float64 for float64 hidden states).

    Raises:
        ValueError: Shapes, tokens or settings that cannot be.
    """
    check_rows({"hidden": hidden}, {"tokens": tokens, "mask": mask})
    check_settings(temperature, tile_tokens)
    logps = zeros_per_token(hidden)
    kept = kept_rows(mask, hidden)
    found = token_range(tokens, kept)

    def work(rows: Tensor) -> int:
        log_p = tile_log_probs(head, hidden[rows], temperature)
        check_tokens(found, log_p.shape[-1])
        logps[rows] = gather(log_p, tokens[rows]).to(logps.dtype)
        return log_p.shape[-1]

    for_each_tile(kept, tile_tokens, work)
    return logps


@torch.no_grad()
def tiled_entropy(
    hidden: Tensor,
    head: Head,
    temperature: float = 1.0,
    tile_tokens: int | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Entropy of each token's distribution, H = -sum_v p_v log p_v, p = softmax(head(h) / T).

    Args:
        hidden: Hidden states h [N, H].
        head: From hidden states to logits.
        temperature: T, divides the logits.
        tile_tokens: Tokens in a tile; by default :func:`~poise.loss.tiles.default_tile_tokens`.
        mask: [N]; tokens where it is zero are skipped and get zero.

    Returns:
        Entropies [N] in nats, detached, float32 (float64 for float64 hidden states).

    Raises:
        ValueError: Settings that cannot be.
    """
    check_settings(temperature, tile_tokens)
    entropies = zeros_per_token(hidden)

    def work(rows: Tensor) -> int:
        log_p = tile_log_probs(head, hidden[rows], temperature)
        entropies[rows] = entropy(log_p).to(entropies.dtype)
        return log_p.shape[-1]

    for_each_tile(kept_rows(mask, hidden), tile_tokens, work)
    return entropies


def _ready(logits: Tensor) -> Tensor:
    return logits
