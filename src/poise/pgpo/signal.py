"""The information signal of PGPO: how much the teacher's hint sharpens its predictions."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..loss.tiled import TiledStatistics

SignalEstimator = Literal["entropy", "kl", "pointwise"]
ESTIMATORS: tuple[str, ...] = get_args(SignalEstimator)


class SignalSum(NamedTuple):
    """Sum of the sequences' signals and their number: adds up over micro-batches and ranks."""

    total: Tensor
    sequences: Tensor


def token_information(estimator: SignalEstimator, statistics: TiledStatistics) -> Tensor:
    r"""Information that the teacher's hint brings about each token, in nats.

    ===========  ===================================================  =========================
    name         formula                                              note
    ===========  ===================================================  =========================
    `entropy`    :math:`H(y|x,y_{<t}) - H(y|x,f,y_{<t})`              the summand of eq. 8
    `kl`         :math:`KL(\pi(.|x,y_{<t}) \| \pi(.|x,f,y_{<t}))`     never negative
    `pointwise`  :math:`\log\pi(y_t|x,f,y_{<t})-\log\pi(y_t|x,y_{<t})`  its mean is minus `kl`
    ===========  ===================================================  =========================

    Args:
        estimator: the name.
        statistics: entropies, divergences and log-probabilities, each of one common shape.

    Returns:
        A tensor of that shape, detached.

    Raises:
        ValueError: unknown name.

    Reference: PGPO (arXiv 2606.03620), eq. 8, for `entropy`.
    Choice: `kl` and `pointwise` are ours. `pointwise` brakes on tokens that the teacher would not
    have written.
    """
    if estimator == "entropy":
        information = statistics.student_entropy - statistics.teacher_entropy
    elif estimator == "kl":
        information = statistics.kl
    elif estimator == "pointwise":
        information = statistics.teacher_logps - statistics.student_logps
    else:
        raise ValueError(f"unknown signal estimator {estimator!r}: use one of {ESTIMATORS}")
    return information.detach()


def information_sum(information: Tensor, mask: Tensor) -> SignalSum:
    r"""Batch part of the signal: :math:`\sum_i \frac{1}{|T_i|}\sum_{t\in T_i} i_{i,t}` (eq. 8).

    Args:
        information: values per token, shape (B, T), nats.
        mask: which tokens the distillation loss keeps, shape (B, T), non-zero is kept.

    Returns:
        The sum over the sequences that keep a token, and how many they are; scalars of float32,
        or float64 where the information is.

    Raises:
        ValueError: the shapes differ.

    Choice: eq. 8 does not say whether H is a sum or a mean over tokens. A sum over thousands of
    tokens saturates the cap, so it is the mean. Sequences without a kept token do not count.
    """
    if information.shape != mask.shape:
        raise ValueError(
            f"information and mask must have one shape, got {tuple(information.shape)} and "
            f"{tuple(mask.shape)}"
        )
    dtype = torch.promote_types(information.dtype, torch.float32)
    kept = mask != 0
    tokens = kept.sum(-1)
    # `where`, not a product: a masked position may hold anything, NaN included.
    sums = torch.where(kept, information.to(dtype), 0.0).sum(-1)
    means = sums / tokens.clamp(min=1)
    return SignalSum(means.sum(), (tokens > 0).sum().to(dtype))
