"""SAND-mask: the AND-mask made smooth, and weaker where magnitudes differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..mask import domain_moments
from ..method import require
from .sign_masks import SignMask, sign_agreement


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
