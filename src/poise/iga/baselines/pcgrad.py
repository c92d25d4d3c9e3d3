"""PCGrad: what of a domain's gradient conflicts with another's is taken out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..method import Aggregator
from .torchjd_aggregator import TorchJD


@dataclass(kw_only=True)
class PCGrad(Aggregator):
    """Projecting conflicting gradients, by TorchJD.

    sum_k w_k p_k, where p_k is g_k after, for each other domain j in random order,
    p_k <- p_k - min(0, p_k . g_j) / |g_j|^2 * g_j, algorithm 1. Inner products are over all factors
    together.

    Symbols: g_k -> gradients (K, P); w_k -> weights (K,).

    Raises:
        ImportError: TorchJD is missing.

    Reference: Yu et al. 2020, arXiv 2001.06782.
    Choice: w_k averages where the paper sums, so that without conflicts it is plain fine-tuning.
    """

    paper: ClassVar[tuple[str, str]] = ("Gradient Surgery for Multi-Task Learning", "2001.06782")

    def __post_init__(self) -> None:
        self._sum = TorchJD(name="PCGrad", seed=self.seed)

    def __call__(self, gradients: Tensor, weights: Tensor) -> Tensor:
        number = len(gradients)
        conflicts = (gradients @ gradients.T < 0).sum() / max(1, number * (number - 1))
        self.figures.add("conflicts", conflicts)
        return self._sum(gradients, weights) / number

    def state_dict(self) -> dict[str, Any]:
        """Figures, and what the next order follows from."""
        return super().state_dict() | {"order": self._sum.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes `state_dict`'s."""
        super().load_state_dict(state)
        self._sum.load_state_dict(state["order"])
