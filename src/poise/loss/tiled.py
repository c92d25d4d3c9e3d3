"""The distillation loss of SDPO from hidden states and output head, tile by tile over tokens.

A plain loss holds up to seven tensors of tokens x vocabulary until its backward. Here every tile's
gradient is taken at once, while its logits exist, so that what is kept for the backward is one
gradient as large as the hidden states and one as large as the head's trainable parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from poise.loss.divergence import Divergence, clipped_ratio, gather, token_divergence
from poise.loss.moved_target import MovedTarget
from poise.loss.policy_term import PolicyTerm
from poise.loss.tile_gradients import TileGradients, power_of_two_scale, trainable_parameters
from poise.loss.tiles import (
    Head,
    check_rows,
    check_settings,
    check_tokens,
    check_vocabularies,
    for_each_tile,
    kept_rows,
    tile_log_probs,
    tile_logits,
    token_range,
    working_dtype,
)
from poise.loss.token_statistics import TiledStatistics, zeros_per_token


@dataclass(frozen=True)
class DistillationOutput(TiledStatistics):
    """The loss, and what its forward passes told on the way (statistics [N], zero if skipped).

    Attributes:
        loss: Scalar, sum_i weights_i * per_token_loss_i, and the policy term; differentiable with
            respect to the student's hidden states and the head's trainable parameters.
        per_token_loss: [N], of the distillation, after the clipped ratio, before the weights,
            detached.
    """

    loss: Tensor
    per_token_loss: Tensor


@dataclass(frozen=True)
class _Job:
    """The inputs that have no gradient."""

    student_head: Head
    teacher_head: Head
    teacher_hidden: Tensor
    tokens: Tensor
    weights: Tensor
    old_logps: Tensor | None
    clip: float | None
    divergence: Divergence
    target: MovedTarget | None
    policy: PolicyTerm | None
    temperature: float
    tile_tokens: int | None


class _Pass:
    """One walk over the kept tokens: values, and gradients where they are wanted."""

    def __init__(
        self, job: _Job, hidden: Tensor, parameters: Sequence[Tensor], differentiate: bool
    ) -> None:
        self.job, self.hidden = job, hidden
        self.statistics = TiledStatistics.zeros(hidden)
        self.per_token_loss = zeros_per_token(hidden)
        self.weights = job.weights.detach().to(self.per_token_loss.dtype)
        policy = job.policy
        self.policy_weights = None if policy is None else policy.weights.detach().to(self.weights)
        distilled = kept_rows(job.weights, hidden)
        alone = self._rows_of_policy_alone()
        rows = distilled if alone is None else torch.cat([distilled, alone])
        self.tokens = token_range(job.tokens, rows)
        self.scale = power_of_two_scale(self._sizes()[rows])
        self.scaled_loss = self.scale.new_zeros(())
        self.gradients = TileGradients(hidden, parameters) if differentiate else None
        for_each_tile(distilled, job.tile_tokens, self._distill)
        if alone is not None:
            for_each_tile(alone, job.tile_tokens, self._reinforce)

    def _rows_of_policy_alone(self) -> Tensor | None:
        if self.policy_weights is None:
            return None
        return ((self.policy_weights != 0) & (self.weights == 0)).nonzero().squeeze(1)

    def _sizes(self) -> Tensor:
        if self.policy_weights is None:
            return self.weights
        return torch.maximum(self.weights.abs(), self.policy_weights.abs())

    def values(self) -> tuple[Tensor, ...]:
        """The fields of :class:`DistillationOutput`, in their order."""
        statistics = (getattr(self.statistics, field.name) for field in fields(TiledStatistics))
        return (*statistics, self.scaled_loss * self.scale, self.per_token_loss)

    def _distill(self, rows: Tensor) -> int:
        """A tile whose tokens are distilled, and may have a policy term as well."""
        job, tokens = self.job, self.job.tokens[rows]
        log_t = tile_log_probs(job.teacher_head, job.teacher_hidden[rows], job.temperature)
        with self._differentiated(rows) as (hidden, log_s):
            check_vocabularies(log_s, log_t)
            loss = self._token_losses(rows, log_s, log_t)
            objective = (loss * self.weights[rows] / self.scale).sum()
            if job.policy is not None:
                objective = objective + self._policy_objective(rows, log_s)
        self._add(rows, hidden, objective)
        self.per_token_loss[rows] = loss.detach().to(self.per_token_loss.dtype)
        self.statistics.write(rows, log_s.detach(), log_t, tokens)
        return log_t.shape[-1]

    def _reinforce(self, rows: Tensor) -> int:
        """A tile whose tokens have a policy term alone: nothing of the teacher is read."""
        with self._differentiated(rows) as (hidden, log_s):
            objective = self._policy_objective(rows, log_s)
        self._add(rows, hidden, objective)
        logps = gather(log_s.detach(), self.job.tokens[rows])
        self.statistics.student_logps[rows] = logps.to(self.statistics.student_logps.dtype)
        return log_s.shape[-1]

    @contextmanager
    def _differentiated(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The tile's hidden states, a leaf, and its log S; the graph goes on inside the block."""
        job = self.job
        hidden = self.hidden[rows].detach()
        # Outer hooks (activations offloaded to the host, say) are not for a graph that lives no
        # longer than its tile.
        with torch.set_grad_enabled(self.gradients is not None), _no_outer_hooks():
            hidden.requires_grad_(self.gradients is not None and self.hidden.requires_grad)
            logits = tile_logits(job.student_head, hidden, job.temperature)
            check_tokens(self.tokens, logits.shape[-1])
            log_s = logits.log_softmax(-1)
            del logits
            yield hidden, log_s

    def _add(self, rows: Tensor, hidden: Tensor, objective: Tensor) -> None:
        if self.gradients is not None:
            self.gradients.add(rows, hidden, objective)
        self.scaled_loss += objective.detach()

    def _policy_objective(self, rows: Tensor, log_s: Tensor) -> Tensor:
        policy, weights = self.job.policy, self.policy_weights
        assert policy is not None and weights is not None
        losses = policy.token_losses(rows, gather(log_s, self.job.tokens[rows]))
        return (losses * weights[rows] / self.scale).sum()

    def _token_losses(self, rows: Tensor, log_s: Tensor, log_t: Tensor) -> Tensor:
        job, tokens = self.job, self.job.tokens[rows]
        target = log_t if job.target is None else job.target.log_probs(log_s.detach(), log_t)
        loss = token_divergence(job.divergence, log_s, target, tokens)
        if job.clip is None or job.old_logps is None:
            return loss
        return loss * clipped_ratio(gather(log_s, tokens), job.old_logps[rows], job.clip)


def _no_outer_hooks() -> saved_tensors_hooks:
    return saved_tensors_hooks(Tensor.detach, lambda tensor: tensor)


_LOSS = [field.name for field in fields(DistillationOutput)].index("loss")


class _TiledLoss(torch.autograd.Function):
    """Differentiates in the forward, scales what it kept in the backward."""

    @staticmethod
    def forward(ctx: Any, job: _Job, hidden: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        done = _Pass(job, hidden, parameters, differentiate=True)
        assert done.gradients is not None
        ctx.save_for_backward(done.scale, *done.gradients.total())
        values = done.values()
        ctx.mark_non_differentiable(*values[:_LOSS], *values[_LOSS + 1 :])
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scale, *kept = ctx.saved_tensors
        factor = gradients[_LOSS] * scale
        return (None, *(_scaled(gradient, factor) for gradient in kept))


def _scaled(gradient: Tensor | None, factor: Tensor) -> Tensor | None:
    """Multiply in float32 at least: a loss scaler's factor does not fit into float16."""
    if gradient is None:
        return None
    return (gradient.to(working_dtype(gradient)) * factor).to(gradient.dtype)


def tiled_distillation_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: Head,
    teacher_head: Head,
    tokens: Tensor,
    weights: Tensor,
    *,
    divergence: Divergence,
    target: MovedTarget | None = None,
    policy: PolicyTerm | None = None,
    temperature: float = 1.0,
    old_logps: Tensor | None = None,
    clip: float | None = None,
    head_parameters: Sequence[Tensor] | None = None,
    tile_tokens: int | None = None,
) -> DistillationOutput:
    """Self-distillation loss on the student's own tokens, never holding tokens x vocabulary.

    loss = sum_i w_i * min(pi(y_i) / pi_old(y_i), clip) * D(S_i || T_i), and ``policy``, where
    S = softmax(student_head(h) / temperature), T the teacher's likewise and without a gradient, and
    D one of :class:`~poise.loss.divergence.Divergence`. The ratio counts only where ``clip`` is
    given, and has no gradient.

    Args:
        student_hidden: The student's hidden states h [N, H], as the head takes them.
        teacher_hidden: The teacher's [N, H'], for the same tokens.
        student_head: From hidden states [n, H] to logits [n, V]: an output head with its adapters,
            soft-capping and dropout. It runs once for every tile.
        teacher_head: The same for the teacher; runs without a gradient.
        tokens: The sampled tokens y, int64 [N].
        weights: w [N], without a gradient: mask and averaging in one. Tokens of weight zero are
            not distilled, whatever their rows hold: no loss, no gradient, zero statistics.
        divergence: What is measured at each token.
        target: What stands in T's place in D; the teacher itself by default. The statistics are
            the teacher's in any case.
        policy: A policy-gradient term that is added. Tokens with this term alone are walked with
            the student's head alone, so that their rows of ``teacher_hidden`` are not read.
        temperature: Divides both heads' logits.
        old_logps: log pi_old(y) [N], of the policy that sampled the tokens; read with ``clip``.
        clip: Bound of the importance ratio; none for no correction.
        head_parameters: The head's trainable tensors, where it is a plain function around them; a
            module's own parameters by default.
        tile_tokens: Tokens in a tile; by default :func:`~poise.loss.tiles.default_tile_tokens`.

    Returns:
        Loss and statistics in nats, float32 (float64 for float64 hidden states).

    Raises:
        ValueError: Shapes, tokens, vocabularies or settings that cannot be, or a head with
            trainable tensors that nobody named.

    Source: SDPO, arXiv 2601.20802; the formulas are those of TRL's SDPO.

    Choice: the loss is differentiated in the forward pass, so it can be differentiated only once,
    and costs what forward and backward cost even if the backward is never called. Evaluate under
    ``torch.no_grad()``. Softmax and sums run in float32 at least.
    """
    check_rows(
        {"student_hidden": student_hidden, "teacher_hidden": teacher_hidden},
        {"tokens": tokens, "weights": weights, "old_logps": old_logps} | _policy_rows(policy),
    )
    check_settings(temperature, tile_tokens)
    _check_clip(old_logps, clip)
    job = _Job(
        student_head=student_head,
        teacher_head=teacher_head,
        teacher_hidden=teacher_hidden.detach(),
        tokens=tokens,
        weights=weights,
        old_logps=old_logps,
        clip=clip,
        divergence=divergence,
        target=target,
        policy=policy,
        temperature=temperature,
        tile_tokens=tile_tokens,
    )
    parameters = trainable_parameters(student_head, head_parameters)
    if torch.is_grad_enabled() and (student_hidden.requires_grad or parameters):
        apply: Any = _TiledLoss.apply
        return DistillationOutput(*apply(job, student_hidden, *parameters))
    with torch.no_grad():
        return DistillationOutput(
            *_Pass(job, student_hidden, parameters, differentiate=False).values()
        )


def _policy_rows(policy: PolicyTerm | None) -> dict[str, Tensor | None]:
    if policy is None:
        return {}
    return {f"policy.{n}": getattr(policy, n) for n in ("advantages", "weights", "old_logps")}


def _check_clip(old_logps: Tensor | None, clip: float | None) -> None:
    if clip is None:
        return
    if not clip > 0:
        raise ValueError(f"clip must be positive, or None for no correction: found {clip}.")
    if old_logps is None:
        raise ValueError(
            "clip bounds the ratio to the policy that sampled the tokens: expected its old_logps, "
            "found None. Pass them, or clip=None."
        )
