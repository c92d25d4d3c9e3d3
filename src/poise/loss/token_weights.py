"""Weights of mean 1 over the distilled tokens, from what teacher and student are sure of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from poise.loss.tiles import working_dtype

TokenWeight = Literal["none", "teacher_entropy", "information"]
TOKEN_WEIGHTS: tuple[str, ...] = get_args(TokenWeight)


@torch.no_grad()
def token_weights(
    kind: TokenWeight,
    beta: float,
    weights: Tensor,
    teacher_entropy: Callable[[], Tensor],
    student_entropy: Callable[[], Tensor],
) -> Tensor:
    r"""Weigh tokens within the loss and leave their total weight as it is.

    .. math:: a_t \leftarrow a_t u_t \frac{\sum_s a_s}{\sum_s a_s u_s}, \qquad
        u_t = e^{-\beta H_T} \text{ or } e^{\beta (H_S - H_T)}

    ================= ============================ ===========================================
    kind              u_t                          favours tokens
    ================= ============================ ===========================================
    `none`            1                            none
    `teacher_entropy` exp(-beta H_T)               of which the teacher is sure
    `information`     exp(beta (H_S - H_T))        about which its hint tells the teacher more
    ================= ============================ ===========================================

    Args:
        kind: which u.
        beta: in 1/nat.
        weights: a, what the loss averages by, shape (N,), zero where a token is not distilled.
        teacher_entropy: gives H_T in nats, shape (N,); is called where u reads it.
        student_entropy: gives H_S likewise.

    Returns:
        The new weights, detached, shape (N,); `weights` itself for `none`.

    Source: SRPO (arXiv 2604.02288), its weight exp(-beta H_T) over its mean; PGPO (arXiv
    2606.03620) names a signal per token as future work, which `information` is.

    Choice: the mean is the loss's own, with the weights a (the paper's, where all tokens have one
    a), so that a step cannot be smaller or larger as a whole. It is over the tokens at hand: a
    micro-batch's, of one rank.
    """
    if kind == "none":
        return weights
    exponent = -beta * teacher_entropy()
    if kind == "information":
        exponent = exponent + beta * student_entropy()
    # sum a softmax(log a + exponent) is the formula, and nothing in it overflows.
    share = (weights.log() + exponent.to(working_dtype(weights))).softmax(0)
    return torch.where(weights != 0, share * weights.sum(), 0.0)
