"""AND-mask and SAND-mask: a step only where the domains' gradients have one sign."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..mask import domain_moments
from ..settings import Aggregator, require


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
        """m, (P,), of two or more domains: of (K, P) gradients, (K,) weights in their dtype, and
        the (P,) mean gradient."""


def sign_agreement(gradients: Tensor, weights: Tensor) -> Tensor:
    """|sum_k w_k sign(g_k)|, (P,), from 0 to 1: 1 where all domains have one sign."""
    return (weights @ gradients.sign()).abs()


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

    paper: ClassVar = ("Learning Explanations That Are Hard to Vary", "2009.00329")

    def __post_init__(self) -> None:
        require("threshold", self.threshold, low=0, high=1)

    def mask(self, gradients: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
        rounding = 1e-6  # K weights of 1 / K need not add up to 1
        agreement = sign_agreement(gradients, weights)
        return (agreement >= self.threshold - rounding).to(mean)


@dataclass(kw_only=True)
class SANDMask(SignMask):
    """Smoothed AND-mask.

    m * g / mean(m),   m = max(0, tanh(k / s * (|sum_k w_k sign(g_k)| - tau)));
    s = V / mean(V), V = sum_k w_k (g_k - g)^2, elementwise.

    Symbols: g_k -> gradients (K, P); w_k -> weights (K,); tau -> threshold; k -> steepness.

    Args:
        threshold: tau, from 0 to below 1.
        steepness: k, above 0.

    Raises:
        ValueError: a value outside its range.

    Reference: Shahtalebi et al. 2021, arXiv 2106.02266.
    Deviation: s is the variance against its mean over all elements; the paper's is the variance
    itself, which for a language model is about 1e-8, so that its tanh would be a step.
    Choice: tau = 0.5. At DomainBed's default of 1 the formula lets nothing through.
    """

    threshold: float = 0.5
    steepness: float = 10.0

    paper: ClassVar[tuple[str, str]] = (
        "SAND-mask: An Enhanced Gradient Masking Strategy for the Discovery of Invariances in "
        "Domain Generalization",
        "2106.02266",
    )

    def __post_init__(self) -> None:
        require("threshold", self.threshold, low=0, high=1)
        require("steepness", self.steepness, low=0)
        if self.threshold == 1 or self.steepness == 0:
            raise ValueError(
                "threshold, steepness: expected a threshold below 1 and a steepness above 0, found "
                f"{self.threshold!r} and {self.steepness!r}, whose mask is 0 everywhere"
            )

    def mask(self, gradients: Tensor, weights: Tensor, mean: Tensor) -> Tensor:
        variance = domain_moments(gradients, weights.tolist()).variance
        used = (gradients != 0).any(0)
        limits = torch.finfo(mean.dtype)
        # Where all domains agree, what is left of the variance is rounding, and no scale.
        least = mean.square().sum() * limits.eps
        unit = torch.maximum(variance.sum(), least) / used.sum().clamp(min=1)
        sharpness = self.steepness * unit / variance.clamp_min(limits.tiny)
        agreement = sign_agreement(gradients, weights)
        return torch.tanh(sharpness * (agreement - self.threshold)).clamp_min(0)
