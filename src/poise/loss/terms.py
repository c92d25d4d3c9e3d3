"""What may be added to the distillation loss: a policy term, weights of tokens, a moved target."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from .divergence import generalised_divergence, working_dtype

TokenWeight = Literal["none", "teacher_entropy", "information"]
TOKEN_WEIGHTS: tuple[str, ...] = get_args(TokenWeight)


@dataclass(frozen=True)
class PolicyTerm:
    r"""A term :math:`-\sum_t w_t \min(r_t A_t, \text{clip}(r_t, 1 - \epsilon, 1 + \epsilon') A_t)`.

    r_t = S(y_t) / pi_old(y_t) is the importance ratio of the sampled token; on policy it is 1 in
    value, and the gradient that of -A_t log S(y_t).

    Attributes:
        advantages: A [N], without a gradient.
        weights: w [N], without a gradient: mask and averaging in one; zero is no term.
        old_logps: log pi_old(y) [N]; None on policy. See :func:`sequence_old_logps` for one ratio
            a sequence.
        epsilon_low: How far the ratio counts below 1.
        epsilon_high: How far above.

    Source: PPO's clipping with GRPO's advantages; formula and names are those of TRL's SDPO
    (`epsilon`, `epsilon_high`).
    """

    advantages: Tensor
    weights: Tensor
    old_logps: Tensor | None = None
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2

    def token_losses(self, rows: Tensor | slice, logps: Tensor) -> Tensor:
        """The losses [n] of the tokens at some rows, before the weights, differentiable in
        ``logps``, log S(y) [n] in nats."""
        # A token without the term may hold any advantage and ratio.
        kept = self.weights[rows] != 0
        advantages = torch.where(kept, self.advantages[rows], 0.0)
        old = logps.detach() if self.old_logps is None else self.old_logps[rows]
        ratio = torch.where(kept, logps - old, 0.0).exp()
        clipped = ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high)
        return -torch.min(ratio * advantages, clipped * advantages)


@torch.no_grad()
def sequence_old_logps(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    """The ``old_logps`` with which every token of a sequence has the sequence's mean log-ratio.

    With them :class:`PolicyTerm` has the values and, where a sequence's tokens have one weight, the
    gradient of TRL's ``importance_sampling_level="sequence"``. ``logps`` are log S(y) [B, T] in
    nats, ``mask`` [B, T] is zero where there is no token.

    Source: GSPO (arXiv 2507.18071), its token-level form.
    """
    total = torch.where(mask != 0, logps - old_logps, 0.0).sum(-1, keepdim=True)
    return logps - total / (mask != 0).sum(-1, keepdim=True).clamp(min=1)


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

    Args:
        kind: which u: `teacher_entropy` favours tokens of which the teacher is sure, `information`
            those about which its hint tells it more; `none` gives `weights` itself.
        beta: in 1/nat.
        weights: a [N], what the loss averages by, zero where a token is not distilled.
        teacher_entropy: gives H_T [N] in nats where u reads it, `student_entropy` H_S.

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


@dataclass(frozen=True)
class MovedTarget:
    r"""The distribution that the student is distilled towards, in the teacher's place.

    .. math:: Q_t \propto T_t^{1 - a_t} S_t^{a_t}, \qquad
        a_t = 2 a_{max} \left(\sigma(\beta\, JSD(S_t, T_t)) - \tfrac12\right)

    with JSD the Jensen-Shannon divergence in nats (alpha 0.5, over the whole vocabulary). Q is the
    teacher where both agree, and tends to a_max on the way to the student where they do not.

    Args:
        mix: a_max, in (0, 1); the paper's is 0.15.
        beta: in 1/nat; the paper's are 25 to 100.

    Raises:
        ValueError: a value outside its range.

    Source: DemoPSD (arXiv 2607.02502), which takes reverse KL to Q; here any divergence does.
    """

    mix: float
    beta: float = 50.0

    def __post_init__(self) -> None:
        if not 0 < self.mix < 1:
            raise ValueError(f"mix must be in (0, 1), found {self.mix}.")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ValueError(f"beta must be positive, found {self.beta}.")

    @torch.no_grad()
    def log_probs(self, log_s: Tensor, log_t: Tensor) -> Tensor:
        """log Q of each token [n, V], without a gradient, from log S and log T [n, V]."""
        difference = generalised_divergence(log_s, log_t, 0.5)
        share = 2 * self.mix * ((self.beta * difference).sigmoid() - 0.5).unsqueeze(-1)
        # A share of zero times a log-probability of -inf would be nan.
        finite = log_s.clamp(min=torch.finfo(log_s.dtype).min)
        return ((1 - share) * log_t + share * finite).log_softmax(-1)
