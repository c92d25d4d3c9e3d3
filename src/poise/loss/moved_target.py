"""A target between teacher and student: it moves further from the teacher where they differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.loss.divergence import generalised_divergence


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
        """log Q of each token, [n, V], without a gradient.

        Args:
            log_s: The student's log-probabilities [n, V].
            log_t: The teacher's log-probabilities [n, V].
        """
        difference = generalised_divergence(log_s, log_t, 0.5)
        share = 2 * self.mix * ((self.beta * difference).sigmoid() - 0.5).unsqueeze(-1)
        # A share of zero times a log-probability of -inf would be nan.
        finite = log_s.clamp(min=torch.finfo(log_s.dtype).min)
        return ((1 - share) * log_t + share * finite).log_softmax(-1)
