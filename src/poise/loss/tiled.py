"""The distillation loss of SDPO and its statistics, from hidden states and output heads.

Tokens go through the heads a tile at a time, so that a tensor of tokens x vocabulary is never held,
of which a plain loss keeps up to seven. Every tile's gradient is taken while its logits exist: for
the backward is kept one as large as the hidden states and one as the head's trained parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.func import functional_call

from poise.loss.divergence import (
    Divergence,
    clipped_ratio,
    entropy,
    gather,
    relative_entropy,
    token_divergence,
    working_dtype,
)
from poise.loss.terms import MovedTarget, PolicyTerm

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, H] to logits [n, V]: a module (adapters, soft-capping included) or function."""

_FIRST_TILE = 16


def default_tile_tokens(vocabulary: int, width: int = 0, device: str = "cpu") -> int:
    """Tokens in a tile, n = max(1, floor(bytes / 4 V)) with 24 MiB on the CPU.

    Elsewhere 64 MiB, or a quarter of a 16-bit head [V, H] where that is more: n = H / 8 at least.

    Args:
        vocabulary: V.
        width: H of the hidden states; 0 for logits that need no head.
        device: The device's type.

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
    """A walk over tokens: the rows of each tile, and what heads say there.

    Args:
        rows: The tokens that the walk comes to [n], places among all.
        tokens: The sampled tokens [N]; None where they are not read.
        temperature, tile_tokens: As :func:`tiled_distillation_loss`'s.
    """

    def __init__(
        self,
        rows: Tensor,
        tokens: Tensor | None,
        temperature: float,
        tile_tokens: int | None,
    ) -> None:
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive, found {temperature}.")
        if tile_tokens is not None and tile_tokens < 1:
            raise ValueError(
                f"tile_tokens must be at least 1, or None for the default: found {tile_tokens}."
            )
        self._temperature, self._tile_tokens = temperature, tile_tokens
        self._device = rows.device.type
        self._vocabulary = self._width = 0  # the first head's
        self._tokens = tokens
        self._range: list[int] = []  # the smallest and the largest token, until they are checked
        if tokens is not None and len(rows):  # one copy to the host for all tiles
            self._range = torch.stack(tokens[rows].aminmax()).tolist()
        self._casts: dict[int, Tensor] = {}

    def tiles(self, rows: Tensor) -> Iterator[Tensor]:
        """Consecutive parts of the rows; the first may be small, until a head tells how large the
        vocabulary is."""
        start, size = 0, self._tile_tokens or _FIRST_TILE
        while start < len(rows):
            yield rows[start : start + size]
            start += size
            size = self._tile_tokens or default_tile_tokens(
                self._vocabulary, self._width, self._device
            )

    def log_probs(self, head: Head | None, states: Tensor) -> Tensor:
        """Log-probabilities [n, V] of a tile's states (logits, without a head), in
        :func:`working_dtype`; the head itself runs in its own precision or autocast's."""
        logits = self._logits(head, states)
        if logits.ndim != 2 or logits.shape[0] != states.shape[0]:
            raise ValueError(
                "A head must map hidden states [n, H] to logits [n, V]: found "
                f"{list(logits.shape)} for {list(states.shape)}."
            )
        vocabulary = logits.shape[-1]
        if self._vocabulary not in (0, vocabulary):
            raise ValueError(
                "Student and teacher must share one vocabulary: found logits over "
                f"{self._vocabulary} and over {vocabulary} tokens."
            )
        self._vocabulary = vocabulary
        self._width = states.shape[-1] if head is not None else self._width
        return (logits.to(working_dtype(logits)) / self._temperature).log_softmax(-1)

    def tokens(self, rows: Tensor) -> Tensor:
        """The tile's tokens, once its heads have run; the first tile checks all."""
        assert self._tokens is not None
        if self._range:
            lowest, highest = self._range
            if lowest < 0 or highest >= self._vocabulary:
                raise ValueError(
                    f"tokens must lie in [0, {self._vocabulary}), found {lowest} to {highest}. "
                    "Give padding weight or mask zero, and tokens of the head's own vocabulary."
                )
            self._range = []
        return self._tokens[rows]

    def _logits(self, head: Head | None, states: Tensor) -> Tensor:
        if head is None:
            return states
        if isinstance(head, nn.Module) and torch.is_autocast_enabled(self._device):
            logits: Tensor = functional_call(head, self._cast_weights(head), (states,))
            return logits
        return head(states)

    def _cast_weights(self, head: nn.Module) -> dict[str, Tensor]:
        """The head's frozen float32 weights in autocast's dtype, by name; cast once for all tiles.

        Autocast keeps the cast of a trainable weight alone. A layer that is not plainly linear may
        read its weights in float32: then nothing is cast.
        """
        layers = {name: m for name, m in head.named_modules() if m._parameters}
        if any(type(module) is not nn.Linear for module in layers.values()):
            return {}
        found = {}
        for name, module in layers.items():
            weight: Any = module.weight
            # Shards (of FSDP, ZeRO) are gathered when their module runs.
            is_whole = type(weight) is nn.Parameter and weight.ndim == 2
            if is_whole and weight.dtype == torch.float32 and not weight.requires_grad:
                if id(weight) not in self._casts:
                    self._casts[id(weight)] = weight.to(torch.get_autocast_dtype(self._device))
                found[f"{name}.weight".removeprefix(".")] = self._casts[id(weight)]
        return found


def _kept_rows(mask: Tensor | None, like: Tensor) -> Tensor:
    """Places of the rows where a mask or weight [N] is not zero."""
    if mask is None:
        return torch.arange(len(like), device=like.device)
    return mask.nonzero().squeeze(1)


def _zeros(like: Tensor) -> Tensor:
    """Zeros [N] for the N rows of ``like``, in its working dtype."""
    return torch.zeros(len(like), dtype=working_dtype(like), device=like.device)


def _check_rows(states: dict[str, Tensor], per_token: dict[str, Tensor | None]) -> None:
    """Refuse tensors that do not describe the same N tokens: states [N, ...], values [N]."""
    tokens = per_token["tokens"]
    assert tokens is not None
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


# Statistics: the walk without a gradient.


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

    @classmethod
    def zeros(cls, like: Tensor) -> TiledStatistics:
        """Those of ``len(like)`` tokens, all zero."""
        return cls(*(_zeros(like) for _ in range(5)))

    def view_as(self, other: Tensor) -> TiledStatistics:
        """The same values in the shape of ``other`` (N elements), e.g. that of a mask [B, T]."""
        names = (field.name for field in fields(TiledStatistics))
        return TiledStatistics(*(getattr(self, name).view_as(other) for name in names))

    @torch.no_grad()
    def write(self, rows: Tensor, log_s: Tensor, log_t: Tensor, tokens: Tensor) -> None:
        """Read a tile's log-probabilities [n, V] and put the values into ``rows`` [n]."""
        dtype = self.kl.dtype
        self.student_entropy[rows] = entropy(log_s).to(dtype)
        self.teacher_entropy[rows] = entropy(log_t).to(dtype)
        self.kl[rows] = relative_entropy(log_s, log_t).to(dtype)
        self.student_logps[rows] = gather(log_s, tokens).to(dtype)
        self.teacher_logps[rows] = gather(log_t, tokens).to(dtype)


@torch.no_grad()
def token_statistics(
    student: Tensor,
    teacher: Tensor,
    tokens: Tensor,
    *,
    mask: Tensor | None = None,
    tile_tokens: int | None = None,
) -> TiledStatistics:
    """Entropies, KL(student || teacher) and log-probabilities of sampled tokens, of ready logits.

    They go through the same tiles, so that the statistics of a loss that is not ours cost a few
    tiles of temporaries, not a second set of tensors of tokens x vocabulary.

    Args:
        student: Logits [N, V], divided by the temperature.
        teacher: The same of the teacher.
        tokens: The sampled tokens, int64 [N].
        mask: [N]; tokens where it is zero are skipped, and their statistics are zero.
        tile_tokens: Tokens in a tile; by default :func:`default_tile_tokens`.

    Returns:
        Statistics in nats, float32 (float64 where the student's logits are).
    """
    _check_rows({"student": student, "teacher": teacher}, {"tokens": tokens, "mask": mask})
    kept = _kept_rows(mask, student)
    walk = _Walk(kept, tokens, 1.0, tile_tokens)
    statistics = TiledStatistics.zeros(student)
    for rows in walk.tiles(kept):
        log_s, log_t = (walk.log_probs(None, logits[rows]) for logits in (student, teacher))
        statistics.write(rows, log_s, log_t, walk.tokens(rows))
    return statistics


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
    """Log-probabilities of given tokens, log softmax(head(h) / temperature)[y].

    Args:
        hidden: Hidden states h [N, H].
        head: From hidden states to logits.
        tokens: The tokens y, int64 [N].
        temperature: Divides the logits.
        tile_tokens: Tokens in a tile; by default :func:`default_tile_tokens`.
        mask: [N]; tokens where it is zero are skipped and get zero.

    Returns:
        Log-probabilities [N] in nats, detached, float32 (float64 for float64 hidden states).
    """
    _check_rows({"hidden": hidden}, {"tokens": tokens, "mask": mask})
    kept, logps = _kept_rows(mask, hidden), _zeros(hidden)
    walk = _Walk(kept, tokens, temperature, tile_tokens)
    for rows in walk.tiles(kept):
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
    """Entropies [N] of the tokens' distributions; arguments as :func:`tiled_token_logps`'s."""
    kept, entropies = _kept_rows(mask, hidden), _zeros(hidden)
    walk = _Walk(kept, None, temperature, tile_tokens)
    for rows in walk.tiles(kept):
        entropies[rows] = entropy(walk.log_probs(head, hidden[rows])).to(entropies.dtype)
    return entropies


@torch.no_grad()
def tiled_log_probs(hidden: Tensor, head: Head, temperature: float = 1.0) -> Tensor:
    """All log-probabilities [N, V] in nats, detached: for few tokens, since they are held."""
    kept = _kept_rows(None, hidden)
    walk = _Walk(kept, None, temperature, None)
    return torch.cat([walk.log_probs(head, hidden[rows]) for rows in walk.tiles(kept)])


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
        """Add a tile's gradient: its places [n], hidden states [n, H] (a leaf), part of the sum."""
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


@dataclass
class _Pass:
    """One walk over the kept tokens: values, and gradients where they are wanted."""

    hidden: Tensor
    teacher_hidden: Tensor
    student_head: Head
    teacher_head: Head
    tokens: Tensor
    weights: Tensor
    divergence: Divergence
    target: MovedTarget | None
    policy: PolicyTerm | None
    temperature: float
    old_logps: Tensor | None
    clip: float | None
    tile_tokens: int | None
    parameters: Sequence[Tensor] | None  # whose gradient is taken; None for no gradient

    def __post_init__(self) -> None:
        self.statistics = TiledStatistics.zeros(self.hidden)
        self.per_token_loss = _zeros(self.hidden)
        rows = distilled = _kept_rows(self.weights, self.hidden)
        self.weights = sizes = self.weights.detach().to(self.per_token_loss.dtype)
        alone = rows[:0]
        if self.policy is not None:
            self.policy_weights = self.policy.weights.detach().to(self.weights)
            alone = _kept_rows((self.policy_weights != 0) & (self.weights == 0), self.hidden)
            rows = torch.cat([distilled, alone])
            sizes = torch.maximum(self.weights.abs(), self.policy_weights.abs())
        self.walk = _Walk(rows, self.tokens, self.temperature, self.tile_tokens)
        self.scale = _power_of_two_scale(sizes[rows])
        self.scaled_loss = self.scale.new_zeros(())
        self.gradients = None
        if self.parameters is not None:
            self.gradients = _Gradients(self.hidden, self.parameters)
        for tile in self.walk.tiles(distilled):
            self._distill(tile)
        for tile in self.walk.tiles(alone):
            self._reinforce(tile)

    def _distill(self, rows: Tensor) -> None:
        """A tile whose tokens are distilled, and may have a policy term as well."""
        log_t = self.walk.log_probs(self.teacher_head, self.teacher_hidden[rows])
        with self._differentiated(rows) as (hidden, log_s):
            tokens = self.walk.tokens(rows)
            target = log_t if self.target is None else self.target.log_probs(log_s.detach(), log_t)
            loss = token_divergence(self.divergence, log_s, target, tokens)
            if self.clip is not None and self.old_logps is not None:
                old_logps = self.old_logps[rows]
                loss = loss * clipped_ratio(gather(log_s, tokens), old_logps, self.clip)
            objective = (loss * self.weights[rows] / self.scale).sum()
            if self.policy is not None:
                objective = objective + self._policy_objective(rows, log_s)
        self._add(rows, hidden, objective)
        self.per_token_loss[rows] = loss.detach().to(self.per_token_loss.dtype)
        self.statistics.write(rows, log_s.detach(), log_t, tokens)

    def _reinforce(self, rows: Tensor) -> None:
        """A tile whose tokens have a policy term alone: the teacher is not read."""
        with self._differentiated(rows) as (hidden, log_s):
            objective = self._policy_objective(rows, log_s)
        self._add(rows, hidden, objective)
        logps = gather(log_s.detach(), self.walk.tokens(rows))
        self.statistics.student_logps[rows] = logps.to(self.statistics.student_logps.dtype)

    @contextmanager
    def _differentiated(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The tile's hidden states, a leaf, and its log S; the graph goes on inside the block."""
        hidden = self.hidden[rows].detach()
        # Outer hooks (activations offloaded to the host, say) are not for a graph of one tile.
        no_outer_hooks = saved_tensors_hooks(Tensor.detach, lambda tensor: tensor)
        with torch.set_grad_enabled(self.gradients is not None), no_outer_hooks:
            hidden.requires_grad_(self.gradients is not None and self.hidden.requires_grad)
            yield hidden, self.walk.log_probs(self.student_head, hidden)

    def _policy_objective(self, rows: Tensor, log_s: Tensor) -> Tensor:
        assert self.policy is not None
        losses = self.policy.token_losses(rows, gather(log_s, self.walk.tokens(rows)))
        return (losses * self.policy_weights[rows] / self.scale).sum()

    def _add(self, rows: Tensor, hidden: Tensor, objective: Tensor) -> None:
        if self.gradients is not None:
            self.gradients.add(rows, hidden, objective)
        self.scaled_loss += objective.detach()


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients are there already: scales them in the backward."""

    @staticmethod
    def forward(ctx: Any, done: _Pass, *inputs: Tensor) -> Tensor:
        assert done.gradients is not None
        ctx.save_for_backward(done.scale, *done.gradients.total())
        return done.scaled_loss * done.scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale, *kept = ctx.saved_tensors
        factor = gradient * scale
        # In float32 at least: a loss scaler's factor does not fit into float16.
        return None, *(
            None if g is None else (g.to(working_dtype(g)) * factor).to(g.dtype) for g in kept
        )


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
    states = {"student_hidden": student_hidden, "teacher_hidden": teacher_hidden}
    per_token = {"tokens": tokens, "weights": weights, "old_logps": old_logps}
    if policy is not None:
        for name in ("advantages", "weights", "old_logps"):
            per_token[f"policy.{name}"] = getattr(policy, name)
    _check_rows(states, per_token)
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
    with torch.no_grad():
        done = _Pass(
            student_hidden,
            teacher_hidden,
            student_head,
            teacher_head,
            tokens,
            weights,
            divergence,
            target,
            policy,
            temperature,
            old_logps,
            clip,
            tile_tokens,
            trained if differentiates else None,
        )
        loss = done.scaled_loss * done.scale
    if differentiates:
        apply: Any = _WithGradients.apply
        loss = apply(done, student_hidden, *trained)
    return DistillationOutput(
        **vars(done.statistics), loss=loss, per_token_loss=done.per_token_loss
    )
