"""AND-mask: a step only along elements on which the domains' gradients have one sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..method import require
from .sign_masks import SignMask, sign_agreement


@dataclass(kw_only=True)
class ANDMask(SignMask):
    """Learning explanations that are hard to vary.

    m * g / mean(m),   m = 1 where |sum_k w_k sign(g_k)| >= tau, else 0.

    Symbols: g_k -> gradients (K, P); w_k -> weights (K,); tau -> threshold.

    Args:
        threshold: tau, from 0 (plain fine-tuning) to 1 (every domain must agree).

    Raises:
        ValueError: a threshold outside its range.

    Reference: Parascandolo et al. 2020, arXiv 2009.00329.
    Choice: tau = 1, DomainBed's default, and its division by mean(m), which keeps the step's size.
    Deviation: that mean is over all factors together, DomainBed's over each parameter.
    """

    threshold: float = 1.0

    paper: ClassVar[tuple[str, str]] = (
        "Learning Explanations That Are Hard to Vary",
        "2009.00329",
    )

    def __post_init__(self) -> None:
        require("threshold", self.threshold, low=0, high=1)

    def mask(self, gradients: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
        rounding = 1e-6  # K weights of 1 / K need not add up to 1
        agreement = sign_agreement(gradients, weights)
        return (agreement >= self.threshold - rounding).to(mean)
