"""V-REx: equal losses in all domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..settings import Evidence, Penalised


@dataclass(kw_only=True)
class VREx(Penalised):
    """Variance Risk Extrapolation.

    sum_k w_k L_k + beta * sum_k w_k (L_k - L)^2,   L = sum_k w_k L_k.

    Symbols: L_k -> evidence.losses, (K,) in nats; w_k -> evidence.weights; beta -> penalty_weight,
    see `Penalised`.

    Raises:
        ValueError: a negative weight or warm-up.

    Reference: Krueger et al. 2020, arXiv 2003.00688.
    Choice: beta = 10 is DomainBed's default; w_k averages over domains where the paper sums losses.
    """

    penalty_weight: float = 10.0

    paper: ClassVar = ("Out-of-Distribution Generalization via Risk Extrapolation", "2003.00688")

    def penalty(self, evidence: Evidence) -> Tensor:
        return evidence.mean((evidence.losses - evidence.mean(evidence.losses)).square())
