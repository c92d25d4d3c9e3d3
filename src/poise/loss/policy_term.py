"""The policy-gradient term of a tiled loss: advantages of sampled tokens, clipped as in PPO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        """The losses [n] of some tokens, before the weights; differentiable in ``logps``.

        Args:
            rows: The tokens' places among all.
            logps: log S(y) [n] in nats.
        """
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
    gradient of TRL's ``importance_sampling_level="sequence"``: the mean's gradient is 1 / length
    for each token, and there are as many tokens as that.

    Args:
        logps: log S(y) [B, T] in nats, of the student as it is.
        old_logps: log pi_old(y) [B, T].
        mask: [B, T], zero where there is no token.

    Source: GSPO (arXiv 2507.18071), its token-level form.
    """
    total = torch.where(mask != 0, logps - old_logps, 0.0).sum(-1, keepdim=True)
    return logps - total / (mask != 0).sum(-1, keepdim=True).clamp(min=1)
