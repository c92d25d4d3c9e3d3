"""Fishr: equal variances of the output head's gradient in all domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..settings import DomainTokens, Evidence, Penalised

# Rows of the head that are worked on at once: K variances of this many rows are what is held.
_ROWS = 4096


@dataclass(kw_only=True)
class Fishr(Penalised):
    """Invariant gradient variances.

    sum_k w_k L_k + lambda * sum_k w_k |v_k - v|^2 / u,   v = sum_k w_k v_k;
    v_k = mean_t(g_t^2) - mean_t(g_t)^2, elementwise, of the tokens' gradients by the output head,
    g_t = (p_t - y_t) h_t^T: mean_t(g_t^2) = mean_t((p_t - y_t)^2 (h_t^2)^T).

    Symbols: h_t -> tokens.hidden (n, H); p_t -> softmax of tokens.logits (n, V); y_t ->
    tokens.targets (n,), one-hot; w_k -> evidence.weights; lambda -> penalty_weight, see
    `Penalised`. v_k is (V, H), made a part of the vocabulary at a time, and anew in the backward.

    Args:
        relative: whether u is |v|^2, without a gradient; else it is 1, the paper's form.

    Raises:
        ValueError: a negative weight or warm-up, a `relative` that is neither true nor false.

    Reference: Rame et al. 2021, arXiv 2109.02934.
    Choice: a sample is a token. The head is a linear map from hidden state to logits; where a model
    scales or caps its logits afterwards, it is a map beside that, whose gradient is g_t as well.
    Deviation: |v|^2 grows with the fourth power of the hidden states' size, so that the paper's
    penalty is about 1 for one model and thousands for another; relative to it lambda has no unit.
    Choice: the biased variance, as the authors' program has it.
    Deviation: no moving average of v_k over steps, which would be K times as large as the head.
    """

    relative: bool = True

    needs_tokens: ClassVar = True
    paper: ClassVar = (
        "Fishr: Invariant Gradient Variances for Out-of-Distribution Generalization",
        "2109.02934",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.relative, bool):
            raise ValueError(f"relative: expected True or False, found {self.relative!r}")

    def penalty(self, evidence: Evidence) -> Tensor:
        present = torch.nonzero(evidence.weights).flatten().tolist()
        weights = evidence.weights[present]
        hidden = [evidence.tokens[k].hidden.to(weights.dtype) for k in present]
        residuals = [_residuals(evidence.tokens[k], weights.dtype) for k in present]
        total = weights.new_zeros(2)
        for start in range(0, residuals[0].shape[1], _ROWS):
            part = [residual[:, start : start + _ROWS] for residual in residuals]
            total = total + checkpoint(_spread, part, hidden, weights, use_reentrant=False)
        spread, size = total.unbind()
        if self.relative:
            spread = spread / size.detach().clamp_min(torch.finfo(total.dtype).tiny)
        return spread


def _residuals(tokens: DomainTokens, dtype: torch.dtype) -> Tensor:
    """p - y, (n, V)."""
    probabilities = tokens.logits.to(dtype).softmax(-1)
    places = torch.arange(probabilities.shape[-1], device=probabilities.device)
    return probabilities - (tokens.targets[:, None] == places).to(probabilities)


def _spread(residuals: Sequence[Tensor], hidden: Sequence[Tensor], weights: Tensor) -> Tensor:
    """sum_k w_k |v_k - v|^2 and |v|^2 over the given rows of the head, (2,)."""
    variances = [
        (p.square().T @ h.square()) / len(h) - (p.T @ h / len(h)).square()
        for p, h in zip(residuals, hidden, strict=True)
    ]
    mean = torch.stack([w * v for w, v in zip(weights, variances, strict=True)]).sum(0)
    distances = torch.stack([(v - mean).square().sum() for v in variances])
    return torch.stack([(weights * distances).sum(), mean.square().sum()])
