"""IRM: one output head that is optimal in every domain at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..settings import Evidence, Penalised


@dataclass(kw_only=True)
class IRM(Penalised):
    """Invariant Risk Minimisation, IRMv1.

    sum_k w_k L_k + lambda * sum_k w_k D_k^2,   D_k = d/dw L_k(w * z) at w = 1.

    With the log-loss of logits z, D_k = mean_t( E_p[z] - z_y ), and as log p = z - log Z this is
    L_k - H_k, the mean loss less the predictions' mean entropy: how far the domain's predictions
    are over-confident (D_k > 0) or too cautious. So the penalty needs no logits and no second
    backward pass.

    Symbols: L_k, H_k -> evidence.losses, evidence.entropies, (K,) in nats; w_k -> evidence.weights;
    lambda -> penalty_weight, see `Penalised`.

    Raises:
        ValueError: a negative weight or warm-up.

    Reference: Arjovsky et al. 2019, arXiv 1907.02893, section 3.1.
    Choice: a sample is a token, as in the loss. D_k^2 is of all the domain's tokens, not the
    product over two halves of them, which removes a bias that is small with hundreds of tokens.
    Choice: lambda = 100 is DomainBed's default; w_k averages over domains where the paper sums.
    """

    penalty_weight: float = 100.0

    paper: ClassVar = ("Invariant Risk Minimization", "1907.02893")

    def penalty(self, evidence: Evidence) -> Tensor:
        return evidence.mean((evidence.losses - evidence.entropies).square())
