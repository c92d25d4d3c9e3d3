"""Divergences between a student's and a teacher's next-token distribution, row by row.

The maths of one tile: log-probabilities of n tokens over a vocabulary of V give one number per
token. A probability that is exactly zero on both sides (a masked vocabulary, a logit of -inf)
contributes nothing, neither to a value nor to a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Mode = Literal["full_logits", "topk_logits", "sampled_token"]


@dataclass(frozen=True)
class Divergence:
    """What the distillation loss measures at each token: D(student || teacher).

    With S the student's and T the teacher's distribution, and M = (1 - alpha) S + alpha T::

        alpha = 0        forward KL     sum_v T_v log(T_v / S_v)
        alpha = 1        reverse KL     sum_v S_v log(S_v / T_v)      (SDPO's equation)
        0 < alpha < 1    Jensen-Shannon (1 - alpha) KL(S || M) + alpha KL(T || M)

    Args:
        mode: ``full_logits`` sums over the whole vocabulary; ``topk_logits`` over the student's
            ``top_k`` likeliest tokens; ``sampled_token`` is reverse KL's score-function form on the
            token that was sampled, stopgrad(log S_y - log T_y) * log S_y.
        alpha: Place between forward KL (0) and reverse KL (1).
        top_k: Size of the support, for ``topk_logits`` only.
        add_tail: For ``topk_logits``: put the mass outside the support into one more bucket.
            Without it both distributions are renormalised on the support.

    Raises:
        ValueError: A value outside its range, or one that the mode does not read.

    Source: SDPO, arXiv 2601.20802; names and conventions are TRL's (``distillation_*``).

    Choice: the paper writes reverse KL, its released configuration Jensen-Shannon on the top 100
    tokens with a tail bucket. Both are exact here; the default alpha is the released 0.5.
    """

    mode: Mode
    alpha: float = 0.5
    top_k: int | None = None
    add_tail: bool = False

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {get_args(Mode)}, found {self.mode!r}.")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha must lie in [0, 1], found {self.alpha}.")
        if self.mode == "sampled_token" and self.alpha != 1.0:
            raise ValueError(
                f"mode='sampled_token' knows reverse KL only: set alpha=1.0, found {self.alpha}."
            )
        if self.mode != "topk_logits" and (self.top_k is not None or self.add_tail):
            raise ValueError(
                "top_k and add_tail belong to mode='topk_logits': leave them unset, found "
                f"top_k={self.top_k}, add_tail={self.add_tail} with mode={self.mode!r}."
            )
        if self.mode == "topk_logits" and not (isinstance(self.top_k, int) and self.top_k >= 1):
            raise ValueError(
                "mode='topk_logits' needs top_k, a whole number of tokens of at least 1, found "
                f"{self.top_k!r}."
            )


def working_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of softmax and statistics: float32, or float64 for float64."""
    return torch.promote_types(tensor.dtype, torch.float32)


def entropy(log_p: Tensor) -> Tensor:
    """Shannon entropy of each row, -sum_v p_v log p_v, in nats: [n, V] to [n]."""
    p = log_p.exp()
    return -(p * log_p.masked_fill(p == 0, 0)).sum(-1)


def relative_entropy(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each row, sum_v p_v log(p_v / q_v), in nats: [n, V] to [n].

    It is +inf where p has mass and q has none.
    """
    return _expectation(log_p.exp(), log_p - log_q)


def _expectation(p: Tensor, values: Tensor) -> Tensor:
    """sum_v p_v values_v, where a probability of zero makes any value count nothing; overwrites
    ``values``, which spares a tensor."""
    return (p * values.masked_fill_(p == 0, 0)).sum(-1)


def generalised_divergence(log_s: Tensor, log_t: Tensor, alpha: float) -> Tensor:
    """Forward KL (alpha 0), reverse KL (1) or Jensen-Shannon between rows, as :class:`Divergence`
    has them: log S and log T [n, V] to nats [n]."""
    if alpha == 0.0:
        return relative_entropy(log_t, log_s)
    if alpha == 1.0:
        return relative_entropy(log_s, log_t)
    s, t = log_s.exp(), log_t.exp()
    mixture = torch.lerp(s, t, alpha)
    # Where the mixture is zero both sides are, and any finite value will do.
    log_m = mixture.masked_fill_(mixture == 0, 1).log()
    student_part, teacher_part = _expectation(s, log_s - log_m), _expectation(t, log_t - log_m)
    return (1 - alpha) * student_part + alpha * teacher_part


def log_ratio(log_a: Tensor, log_b: Tensor) -> Tensor:
    """log a - log b elementwise, zero where a and b are both zero."""
    return (log_a - log_b).masked_fill(torch.isneginf(log_a) & torch.isneginf(log_b), 0)


def clipped_ratio(logps: Tensor, old_logps: Tensor, clip: float) -> Tensor:
    """Importance ratio [n] of the sampled tokens, min(pi / pi_old, clip), without a gradient.

    The log-ratio is first held to [-20, 20], as TRL does.
    """
    return log_ratio(logps, old_logps).detach().clamp(-20.0, 20.0).exp().clamp(max=clip)


def token_divergence(
    divergence: Divergence, log_s: Tensor, log_t: Tensor, tokens: Tensor
) -> Tensor:
    """D(student || teacher) of the sampled tokens [n] in nats [n], differentiable with respect to
    the student: of log S and log T [n, V], the teacher's without a gradient."""
    top_k = divergence.top_k
    if divergence.mode == "sampled_token":
        log_s, log_t = gather(log_s, tokens), gather(log_t, tokens)
        impossible = torch.isneginf(log_s) & torch.isneginf(log_t)
        return log_ratio(log_s, log_t).detach() * log_s.masked_fill(impossible, 0)
    if top_k is not None:
        if top_k > log_s.shape[-1]:
            raise ValueError(
                f"top_k must not exceed the vocabulary: found top_k={top_k} for a vocabulary of "
                f"{log_s.shape[-1]}. Lower it, or choose mode='full_logits'."
            )
        support = log_s.detach().topk(top_k, dim=-1).indices
        log_s, log_t = (
            _closed(log_p.gather(-1, support), divergence.add_tail) for log_p in (log_s, log_t)
        )
    return generalised_divergence(log_s, log_t, divergence.alpha)


def gather(log_p: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities [n] of the given tokens [n] out of [n, V]."""
    return log_p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def _closed(log_p: Tensor, add_tail: bool) -> Tensor:
    """A distribution of a part of one: with the rest in a bucket more, or renormalised.

    The bucket is at least log 1e-7 or so: TRL's bound keeps it finite. Where it acts, the buckets
    sum to 1 + 1e-7 at most, and a divergence may fall to -1e-7.
    """
    captured = log_p.logsumexp(-1, keepdim=True)
    if add_tail:
        return torch.cat([log_p, (-captured.clamp(max=-1e-7).expm1()).log()], dim=-1)
    # A teacher without any mass on the support stays without: -inf - (-inf) would be nan.
    return log_p - captured.masked_fill(torch.isneginf(captured), 0)
