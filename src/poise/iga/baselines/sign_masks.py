"""What the masks of gradient signs share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..method import Aggregator


@dataclass(kw_only=True)
class SignMask(Aggregator):
    """m * g / mean(m), g = sum_k w_k g_k: the mean gradient where the domains' signs agree.

    The mean of m is over elements that have a gradient at all, so that factors without any (LoRA's
    A at the first step) do not count as conflicts. One domain cannot disagree: its m is 1.
    """

    def __call__(self, gradients: Tensor, weights: Tensor) -> Tensor:
        shares = weights.to(gradients)
        mean = shares @ gradients
        used = (gradients != 0).any(0)
        mask = torch.ones_like(mean) if len(gradients) == 1 else self.mask(gradients, shares, mean)
        kept = (mask * used).sum() / used.sum().clamp(min=1)
        self.figures.add("mask_mean", kept)
        return mask * mean / kept.clamp_min(1e-10)

    @abstractmethod
    def mask(self, gradients: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
        """m, (P,), of two or more domains.

        Args:
            gradients: (K, P).
            weights: (K,) in the gradients' dtype.
            mean: (P,) the mean gradient.
        """


def sign_agreement(gradients: Tensor, weights: Tensor) -> Tensor:
    """|sum_k w_k sign(g_k)|, (P,), from 0 to 1: 1 where all domains have one sign."""
    return (weights @ gradients.sign()).abs()
