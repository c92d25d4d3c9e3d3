"""The distillation loss of SDPO and its statistics, from hidden states and output heads.

Tokens go through the heads a tile at a time, so that a tensor of tokens x vocabulary is never held,
of which a plain loss keeps up to seven. Every tile's gradient is taken while its logits exist: for
the backward is kept one as large as the hidden states and one as the head's trained parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.func import functional_call

from .divergence import (
    Divergence,
    clipped_ratio,
    entropy,
    gather,
    relative_entropy,
    token_divergence,
    working_dtype,
)
from .terms import MovedTarget, PolicyTerm

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, H] to logits [n, V]: a module (adapters, soft-capping included) or function."""

_FIRST_TILE = 16


def default_tile_tokens(vocabulary: int, width: int = 0, device: str = "cpu") -> int:
    """Tokens in a tile, n = max(1, floor(bytes / 4 V)) with 24 MiB on the CPU.

    Elsewhere 64 MiB, or a quarter of a 16-bit head [V, H] where that is more: n = H / 8 at least.

    V is the vocabulary, H the width of the hidden states, 0 for logits that need no head.

    Choice: on one core with V = 49,152 and H = 576, tiles of 12 to 30 MiB are equally fast, and of
    64 MiB 1.4 to 1.6 times as slow, because the C library's allocator maps such blocks anew. On an
    accelerator a tile reads the head three times, 6 V H bytes, and moves its float32 logits 69 (KL)
    to 120 times (Jensen-Shannon): from n = H / 8 on, the head is a sixth of the traffic at most.
    Ten tiles live at the peak, as much as 2.5 such heads (counted, not timed).
    """
    if device == "cpu":
        return max(1, 24 * 2**20 // (4 * vocabulary))
    return max(1, 64 * 2**20 // (4 * vocabulary), width // 8)


class _Walk:
    """A walk over the tokens at ``rows`` [n], a tile at a time, and what heads say there.

    ``tokens`` [N] are None where they are not read; the rest is :func:`tiled_distillation_loss`'s.
    """

    def __init__(
        self, rows: Tensor, tokens: Tensor | None, temperature: float, tile_tokens: int | None
    ) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive, found {temperature}.")
        if tile_tokens is not None and tile_tokens < 1:
            raise ValueError(
                f"tile_tokens must be at least 1, or None for the default: found {tile_tokens}."
            )
        self._rows, self._tokens = rows, tokens
        self._temperature, self._tile_tokens = temperature, tile_tokens
        self._device = rows.device.type
        self._vocabulary = self._width = 0  # the first head's
        self._is_checked = False
        self._cast = cache(lambda weight: weight.to(torch.get_autocast_dtype(rows.device.type)))

    def tiles(self, rows: Tensor | None = None) -> Iterator[Tensor]:
        """Consecutive parts of some rows, by default all; the first may be small, until a head
        tells how large the vocabulary is."""
        rows = self._rows if rows is None else rows
        start, size = 0, self._tile_tokens or _FIRST_TILE
        while start < len(rows):
            yield rows[start : start + size]
            start += size
            size = self._tile_tokens or default_tile_tokens(
                self._vocabulary, self._width, self._device
            )

    def log_probs(self, head: Head, states: Tensor) -> Tensor:
        """Log-probabilities [n, V] of a tile's states, in :func:`working_dtype`; the head itself
        runs in its own precision or autocast's."""
        if isinstance(head, nn.Module) and torch.is_autocast_enabled(self._device):
            logits: Tensor = functional_call(head, self._cast_weights(head), (states,))
        else:
            logits = head(states)
        if logits.ndim != 2 or len(logits) != len(states):
            raise ValueError(
                "A head must map hidden states [n, H] to logits [n, V]: found "
                f"{list(logits.shape)} for {list(states.shape)}."
            )
        if self._vocabulary not in (0, logits.shape[-1]):
            raise ValueError(
                "Student and teacher must share one vocabulary: found logits over "
                f"{self._vocabulary} and over {logits.shape[-1]} tokens."
            )
        self._vocabulary, self._width = logits.shape[-1], states.shape[-1]
        return (logits.to(working_dtype(logits)) / self._temperature).log_softmax(-1)

    def tokens(self, rows: Tensor) -> Tensor:
        """The tile's tokens, once its heads have run; the first tile checks all, by one copy to
        the host."""
        assert self._tokens is not None
        if not self._is_checked:
            lowest, highest = torch.stack(self._tokens[self._rows].aminmax()).tolist()
            if lowest < 0 or highest >= self._vocabulary:
                raise ValueError(
                    f"tokens must lie in [0, {self._vocabulary}), found {lowest} to {highest}. "
                    "Give padding weight or mask zero, and tokens of the head's own vocabulary."
                )
            self._is_checked = True
        return self._tokens[rows]

    def _cast_weights(self, head: nn.Module) -> dict[str, Tensor]:
        """The head's frozen float32 weights in autocast's dtype, by name; cast once for all tiles.

        Autocast keeps the cast of a trainable weight alone. A layer that is not plainly linear may
        read its weights in float32: then nothing is cast.
        """
        if any(m._parameters and type(m) is not nn.Linear for m in head.modules()):
            return {}
        return {
            name: self._cast(weight)
            for name, weight in head.named_parameters()
            # Shards (of FSDP, ZeRO) are gathered when their module runs.
            if (type(weight) is nn.Parameter and weight.ndim == 2)
            and (weight.dtype == torch.float32 and not weight.requires_grad)
        }


def _kept_rows(mask: Tensor | None, like: Tensor) -> Tensor:
    """Places of the rows where a mask or weight [N] is not zero."""
    if mask is None:
        return torch.arange(len(like), device=like.device)
    return mask.nonzero().squeeze(1)


def _zeros(like: Tensor) -> Tensor:
    """Zeros [N] for the N rows of ``like``, in its working dtype."""
    return torch.zeros(len(like), dtype=working_dtype(like), device=like.device)


def _check_rows(
    tokens: Tensor, states: dict[str, Tensor], per_token: dict[str, Tensor | None]
) -> None:
    """Refuse tensors that do not describe the same N tokens: states [N, ...], values [N]."""
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(
            f"tokens must be int64 of shape [N], found {tokens.dtype} {list(tokens.shape)}. "
            "Flatten batch and time first."
        )
    for name, tensor in states.items():
        if tensor.ndim != 2 or len(tensor) != len(tokens) or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating point of shape [{len(tokens)}, width], one row a token: "
                f"found {tensor.dtype} {list(tensor.shape)}."
            )
    for name, value in per_token.items():
        if value is not None and value.shape != tokens.shape:
            raise ValueError(
                f"{name} must have one value a token, shape {list(tokens.shape)}: found "
                f"{list(value.shape)}."
            )


# Readings, without a gradient.


@torch.no_grad()
def tiled_token_logps(
    hidden: Tensor,
    head: Head,
    tokens: Tensor,
    temperature: float = 1.0,
    tile_tokens: int | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Log-probabilities [N] of given tokens, log softmax(head(h) / temperature)[y], in nats.

    Of hidden states h [N, H] and tokens y, int64 [N]; where ``mask`` [N] is zero, a token is
    skipped and gets zero. Detached, float32 (float64 for float64 hidden states).
    """
    _check_rows(tokens, {"hidden": hidden}, {"mask": mask})
    walk, logps = _Walk(_kept_rows(mask, hidden), tokens, temperature, tile_tokens), _zeros(hidden)
    for rows in walk.tiles():
        log_p = walk.log_probs(head, hidden[rows])
        logps[rows] = gather(log_p, walk.tokens(rows)).to(logps.dtype)
    return logps


@torch.no_grad()
def tiled_entropy(
    hidden: Tensor,
    head: Head,
    temperature: float = 1.0,
    tile_tokens: int | None = None,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Entropies [N] of the tokens' distributions, in nats; where ``mask`` [N] is zero, zero. Other
    arguments are :func:`tiled_distillation_loss`'s."""
    walk = _Walk(_kept_rows(mask, hidden), None, temperature, tile_tokens)
    entropies = _zeros(hidden)
    for rows in walk.tiles():
        entropies[rows] = entropy(walk.log_probs(head, hidden[rows])).to(entropies.dtype)
    return entropies


@torch.no_grad()
def tiled_log_probs(hidden: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """All log-probabilities [N, V] in nats, detached: for few tokens, since they are held."""
    walk = _Walk(_kept_rows(None, hidden), None, temperature, None)
    return torch.cat([walk.log_probs(head, hidden[rows]) for rows in walk.tiles()])


@dataclass(frozen=True)
class TiledStatistics:
    """What a walk over the tokens reads: detached, [N], in nats, zero at skipped tokens.

    A token that has a policy term alone has ``student_logps`` alone.

    Attributes:
        student_entropy: H(S), the student's entropy over the whole vocabulary.
        teacher_entropy: H(T), the teacher's.
        kl: KL(S || T) over the whole vocabulary.
        student_logps: log S of the sampled tokens.
        teacher_logps: log T of the sampled tokens.
    """

    student_entropy: Tensor
    teacher_entropy: Tensor
    kl: Tensor
    student_logps: Tensor
    teacher_logps: Tensor

    def view_as(self, other: Tensor) -> TiledStatistics:
        """The same values in the shape of ``other`` (N elements), e.g. that of a mask [B, T]."""
        names = (field.name for field in fields(TiledStatistics))
        return TiledStatistics(*(getattr(self, name).view_as(other) for name in names))


@torch.no_grad()
def token_statistics(
    student: Tensor,
    teacher: Tensor,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    tile_tokens: int | None = None,
) -> TiledStatistics:
    """The statistics of ready logits [N, V], divided by the temperature, for a loss not ours.

    They cost a few tiles of temporaries, not a second set of tensors of tokens x vocabulary.
    Tokens, mask, precision as in :func:`tiled_token_logps`.
    """
    _check_rows(tokens, {"student": student, "teacher": teacher}, {"mask": mask})

    def same(logits: Tensor) -> Tensor:
        return logits

    if tile_tokens is None:  # there is no head whose width counts
        tile_tokens = default_tile_tokens(student.shape[-1], device=student.device.type)
    output = tiled_distillation_loss(
        student,
        teacher,
        same,
        same,
        tokens,
        torch.ones_like(tokens) if mask is None else mask,
        divergence=Divergence("sampled_token", 1.0),  # the cheapest
        tile_tokens=tile_tokens,
    )
    return output.view_as(tokens)


# The gradient, added up tile by tile in the forward pass.


def _power_of_two_scale(weights: Tensor) -> Tensor:
    """The smallest power of two above all |weights|, 2^-100 at least (scalar; 1 for no weights).

    Gradients are taken for weights / scale, and scaled in the backward: weights of 1 / tokens would
    push a float16 head's gradients below its smallest number before the loss scaler lifts them.
    """
    if weights.numel() == 0:
        return weights.new_ones(())
    exponent = torch.frexp(weights.abs().max()).exponent.clamp(min=-100)
    return torch.ldexp(weights.new_ones(()), exponent)


class _Gradients:
    """Gradients of a sum over tiles with respect to the hidden states and the head's parameters.

    Choice: the head's add up in float32 at least and are returned in the parameters' dtype: a
    bfloat16 sum over many tiles would lose the later ones.
    """

    def __init__(self, hidden: Tensor, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._hidden = torch.zeros_like(hidden) if hidden.requires_grad else None
        self._sums: dict[int, Tensor] = {}  # by the parameter's place
        self._has_tiles = False

    def add(self, rows: Tensor, hidden: Tensor, objective: Tensor) -> None:
        """Add a tile's: its places [n], hidden states [n, H] (a leaf), part of the sum."""
        inputs = [*([hidden] if hidden.requires_grad else []), *self._parameters]
        if not self._has_tiles:
            _refuse_undeclared(objective, inputs)
        self._has_tiles = True
        gradients = list(torch.autograd.grad(objective, inputs, allow_unused=True))
        if self._hidden is not None and (tile := gradients.pop(0)) is not None:
            self._hidden[rows] = tile
        for place, gradient in enumerate(gradients):
            if gradient is not None:
                if place not in self._sums:
                    wide = working_dtype(gradient)
                    self._sums[place] = torch.zeros_like(gradient, dtype=wide)
                self._sums[place] += gradient

    def total(self) -> tuple[Tensor | None, ...]:
        """The gradients of hidden states and parameters, None where nothing reached a tensor; zeros
        if there was no tile, so that a rank with an empty mask takes part in the reduction."""
        if not self._has_tiles:
            return (self._hidden, *map(torch.zeros_like, self._parameters))
        sums = [(self._sums.get(place), p.dtype) for place, p in enumerate(self._parameters)]
        return (self._hidden, *(None if total is None else total.to(d) for total, d in sums))


def _refuse_undeclared(objective: Tensor, inputs: Sequence[Tensor]) -> None:
    """Refuse a head that reaches a trainable tensor whose gradient would be lost silently."""
    pending: list[Any] = [objective.grad_fn]
    seen = {None, *(get_gradient_edge(tensor).node for tensor in inputs)}
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            raise ValueError(
                "The student head depends on a trainable tensor of shape "
                f"{list(node.variable.shape)} that is not among its parameters, so its gradient "
                "would be lost. Name all of them in head_parameters, or pass an nn.Module."
            )
        pending.extend(following for following, _ in node.next_functions)


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are there already: scales them in the backward."""

    @staticmethod
    def forward(
        ctx: Any, loss: Tensor, scale: Tensor, gradients: tuple[Tensor | None, ...], *_: Tensor
    ) -> Tensor:
        ctx.save_for_backward(scale, *gradients)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale, *kept = ctx.saved_tensors
        factor = gradient * scale
        # In float32 at least: a loss scaler's factor does not fit into float16.
        return (
            None,
            None,
            None,
            *(None if g is None else (g.to(working_dtype(g)) * factor).to(g.dtype) for g in kept),
        )


# The loss.


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
        tile_tokens: Tokens in a tile; by default :func:`default_tile_tokens`.

    Returns:
        Loss and statistics in nats, float32 (float64 for float64 hidden states).

    Raises:
        ValueError: Shapes, tokens, vocabularies or settings that cannot be, or a head with
            trainable tensors that nobody named.

    Source: SDPO, arXiv 2601.20802; the formulas are those of TRL's SDPO.

    Choice: the loss is differentiated in the forward pass, so only once, and at the cost of a
    backward even if none follows; evaluate under ``torch.no_grad()``. Softmax and sums run in
    float32 at least.
    """
    per_token = {"weights": weights, "old_logps": old_logps}
    if policy is not None:
        for name in ("advantages", "weights", "old_logps"):
            per_token[f"policy.{name}"] = getattr(policy, name)
    states = {"student_hidden": student_hidden, "teacher_hidden": teacher_hidden}
    _check_rows(tokens, states, per_token)
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be positive, or None for no correction: found {clip}.")
    if clip is not None and old_logps is None:
        raise ValueError(
            "clip bounds the ratio to the policy that sampled the tokens: expected its old_logps, "
            "found None. Pass them, or clip=None."
        )
    if head_parameters is None and isinstance(student_head, nn.Module):
        head_parameters = list(student_head.parameters())
    trained = [p for p in head_parameters or () if p.requires_grad]
    differentiates = torch.is_grad_enabled() and (student_hidden.requires_grad or bool(trained))

    dtype = working_dtype(student_hidden)
    distilled = _kept_rows(weights, student_hidden)
    weights = sizes = weights.detach().to(dtype)
    alone = distilled[:0]  # tokens that have a policy term alone: their teacher is not read
    if policy is not None:
        policy_weights = policy.weights.detach().to(weights)
        alone = _kept_rows((policy_weights != 0) & (weights == 0), student_hidden)
        sizes = torch.maximum(weights.abs(), policy_weights.abs())
    every = torch.cat([distilled, alone])
    walk = _Walk(every, tokens, temperature, tile_tokens)
    scale = _power_of_two_scale(sizes[every])
    scaled_loss = scale.new_zeros(())
    gradients = _Gradients(student_hidden, trained) if differentiates else None
    names = {field.name for field in fields(DistillationOutput)} - {"loss"}
    values = {name: _zeros(student_hidden) for name in names}

    def read(rows: Tensor, is_distilled: bool) -> None:
        """Add a tile to the loss and its gradient, and put its values into `rows`."""
        hidden, objective = student_hidden[rows].detach(), torch.zeros_like(scale)
        log_t = walk.log_probs(teacher_head, teacher_hidden[rows]) if is_distilled else None
        # Outer hooks (activations offloaded to the host, say) are not for a graph of one tile.
        no_outer_hooks = saved_tensors_hooks(Tensor.detach, lambda tensor: tensor)
        with torch.set_grad_enabled(differentiates), no_outer_hooks:
            hidden.requires_grad_(differentiates and student_hidden.requires_grad)
            log_s = walk.log_probs(student_head, hidden)
            own = walk.tokens(rows)
            found = {"student_logps": gather(log_s.detach(), own)}
            if log_t is not None:
                towards = log_t if target is None else target.log_probs(log_s.detach(), log_t)
                loss = token_divergence(divergence, log_s, towards, own)
                if clip is not None and old_logps is not None:
                    ratio = clipped_ratio(found["student_logps"], old_logps[rows], clip)
                    loss = loss * ratio
                objective = objective + (loss * weights[rows] / scale).sum()
                found["per_token_loss"] = loss
            if policy is not None:
                losses = policy.token_losses(rows, gather(log_s, own))
                objective = objective + (losses * policy_weights[rows] / scale).sum()
        if gradients is not None:
            gradients.add(rows, hidden, objective)
        scaled_loss.add_(objective.detach())
        if log_t is not None:
            log_s = log_s.detach()
            found["student_entropy"], found["teacher_entropy"] = entropy(log_s), entropy(log_t)
            found["kl"] = relative_entropy(log_s, log_t)
            found["teacher_logps"] = gather(log_t, own)
        for name, value in found.items():
            values[name][rows] = value.detach().to(dtype)

    with torch.no_grad():
        for rows in walk.tiles(distilled):
            read(rows, is_distilled=True)
        for rows in walk.tiles(alone):
            read(rows, is_distilled=False)
        loss = scaled_loss * scale
    if gradients is not None:
        apply: Any = _WithGradients.apply
        loss = apply(loss, scale, gradients.total(), student_hidden, *trained)
    return DistillationOutput(**values, loss=loss)
