"""Weights that favour the questions that are neither solved nor hopeless."""

from __future__ import annotations

import torch
from torch import Tensor


def pass_rate_weights(
    successes: Tensor, distilled: Tensor, group_size: int, known: Tensor | None = None
) -> Tensor:
    r"""Weight of each rollout's distillation loss, from its question's pass rate.

    .. math:: w_i = \sqrt{\hat p_q (1 - \hat p_q)} \,/\, \overline{w}

    where :math:`\hat p_q` is the share of the successes among the known rollouts of the question q
    that i belongs to, and the mean :math:`\overline{w}` is over the rollouts that are distilled and
    have a weight above zero. Those weights thus have mean 1, and the step keeps its size.

    Args:
        successes: which rollouts succeed, shape (N,), bool; the rollouts of a question, of all
            ranks, stand together.
        distilled: which have a teacher context, shape (N,), non-zero is distilled.
        group_size: rollouts a question.
        known: which rollouts were scored, shape (N,), bool; None for all.

    Returns:
        Weights, float32, shape (N,). Zero for all rollouts of a question that always or never
        succeeds, and for those that are not distilled.

    Raises:
        ValueError: the shapes differ, or N is no multiple of the group's size.

    Reference: SC-SDPO (arXiv 2605.27765), its weight :math:`[\hat p (1 - \hat p)]^{1/2}`.
    Choice: the abstract calls the normalization batch-adaptive and gives no formula; it is the
    mean over the rollouts that count in the generation batch.
    """
    if successes.shape != distilled.shape or successes.ndim != 1:
        raise ValueError(
            "successes and distilled must be vectors of one length, got shapes "
            f"{tuple(successes.shape)} and {tuple(distilled.shape)}"
        )
    if len(successes) % group_size:
        raise ValueError(
            f"expected whole groups of {group_size} rollouts, found {len(successes)} rollouts"
        )
    known = torch.ones_like(successes) if known is None else known
    counts = [part.view(-1, group_size).sum(1, keepdim=True) for part in (successes & known, known)]
    rate = counts[0].float() / counts[1].clamp(min=1)
    spread = (rate * (1 - rate)).sqrt().expand(-1, group_size).flatten()
    weights = torch.where(distilled != 0, spread, 0.0)
    counted = (weights > 0).sum()
    # Without a rollout that counts, 0 / 1: all zero.
    return weights / torch.where(counted > 0, weights.sum() / counted, 1.0)
