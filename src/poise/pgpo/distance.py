"""The step as a distance in policy space: how far it may move the policy, and how far it did.

`DistanceControl` is the law, `policy_distance` the measure, `StepTokens` what it is taken on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..loss.divergence import log_ratio, relative_entropy
from ..loss.tiled import tiled_log_probs, tiled_token_logps
from ..sharding import gather
from .ranges import POSITIVE, POSITIVE_OR_NONE, check_ranges

REACH = 2.0  # the most by which the scale changes from one step to the next
READINGS = 8  # of rounding, which are averaged; and steps from one to the next


class DistanceSum(NamedTuple):
    """Sum of the tokens' divergences and their number: adds up over micro-batches and ranks."""

    total: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class DistanceState:
    """What the controller remembers.

    Attributes:
        scale: of the last step, multiplier times the learning rate's share of its base.
        moved: how far that step went, in nats a token; None if it was not measured.
        asked: how far it was to go; None before the first step.
        rounding: what rounding adds to a measurement, and was taken off it; a running mean.
        steps: that had a distance.
    """

    scale: float
    moved: float | None = None
    asked: float | None = None
    rounding: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class DistanceControl:
    r"""Step multiplier that holds the policy's own change at a target.

    With :math:`D_k = KL(\pi_{old} \| \pi_{new})`, the mean over tokens of step k's completions, and
    :math:`d_k` the distance that was asked for,

    .. math:: \rho_{k+1} = \mathrm{clip}\big(\rho_k\,
        \mathrm{clip}(\sqrt{d_{k+1} / D_k},\ 1/2,\ 2),\ \rho_{min},\ \rho_{max}\big)

    since for small steps D grows with the square of the step. The learning rate says only where the
    search begins.

    In bfloat16 rounding alone makes D larger by N, some 0.002 nats. N is measured and taken off. As
    that leaves noise of the order of N, a step is taken to have gone

    .. math:: d_k\ \mathrm{clip}\big(D_k / d_k,\ 1/4,\ 4\big)^{d_k / (d_k + N)}

    Args:
        target: d, in nats a token, positive.
        first: :math:`\rho_0`; small, so that the first step does no harm.
        rho_min: least multiplier, positive.
        rho_max: largest multiplier.
        signal_share: a step asks for at most this share of its information signal, which with the
            estimator `kl` is what student and teacher still differ by.
        afterwards: correct each step after it was taken, by its own distance, instead of the next
            one alone. Costs a copy of the trained weights and one to three measurements.

    Raises:
        ValueError: an argument outside its range.

    Choice: ours, as is the method, and what becomes of rounding. A scheduler scales the distance,
    not the step: where the rate is the share s of its base, the step asks for s d. What is
    remembered is the whole scale, rho s, so that a schedule's jump is not taken for a change of the
    policy's.
    """

    target: float = 0.006
    first: float = 0.02
    rho_min: float = 1e-4
    rho_max: float = 1000.0
    signal_share: float | None = None
    afterwards: bool = False

    def __post_init__(self) -> None:
        positive = dict.fromkeys(("target", "first", "rho_min", "rho_max"), POSITIVE)
        check_ranges(self, positive | {"signal_share": POSITIVE_OR_NONE})
        if not self.rho_min <= self.first <= self.rho_max:
            raise ValueError(
                "first must lie between rho_min and rho_max, got "
                f"first={self.first!r}, rho_min={self.rho_min!r}, rho_max={self.rho_max!r}"
            )

    def init(self) -> DistanceState:
        """The state before the first step."""
        return DistanceState(scale=self.first)

    def asked(self, signal: float | None, factor: float, share: float) -> float:
        """The distance that a step asks for, in nats a token.

        Of its signal in nats (None if nothing was distilled), what `Viscosity` makes of it, g(I),
        and the learning rate as a share of its base.
        """
        distance = self.target * factor
        if self.signal_share is not None and signal is not None:
            distance = min(distance, self.signal_share * max(signal, 0.0))
        return distance * share

    def step(self, asked: float, share: float, state: DistanceState) -> tuple[float, DistanceState]:
        """A step's multiplier, and the state with which it is taken."""
        if share <= 0:  # a step of nothing, as a warm-up's first
            return 1.0, state
        scale = state.scale
        if (before := went(state)) is not None:
            scale *= change(asked, before)
        rho = self.clip(scale / share)
        return rho, replace(
            state, scale=rho * share, moved=None, asked=asked, steps=state.steps + 1
        )

    def clip(self, rho: float) -> float:
        """A multiplier within the bounds."""
        return min(max(rho, self.rho_min), self.rho_max)

    @staticmethod
    def reads_rounding(state: DistanceState) -> bool:
        """Whether the step at hand is one to measure rounding at: the first 8, and every eighth."""
        return state.steps <= READINGS or state.steps % READINGS == 0

    @staticmethod
    def rounded(rounding: float, state: DistanceState) -> DistanceState:
        """The state with a measurement of rounding, in nats a token, in its running mean over 8.

        A measurement of 0, as in float32, replaces the mean; one that is not finite is passed over.
        """
        if not math.isfinite(rounding):
            return state
        is_mean = state.rounding > 0 and rounding > 0
        weight = 1 / min(max(state.steps, 1), READINGS) if is_mean else 1.0
        return replace(state, rounding=state.rounding + weight * (rounding - state.rounding))

    @staticmethod
    def moved(distance: float | None, state: DistanceState) -> DistanceState:
        """The state after the step, told how far it went, rounding included."""
        return replace(state, moved=None if distance is None else distance - state.rounding)


def went(state: DistanceState, reach: float = REACH) -> float | None:
    """How far the last step is taken to have gone, in nats a token, where the scale will be divided
    by `reach` for it at most; None before the first."""
    asked, moved = state.asked, state.moved
    if moved is None:  # a step that was not measured went as far as it was to go
        return asked
    if state.rounding <= 0 or not asked or not math.isfinite(moved):
        return moved
    ratio = min(max(moved / asked, REACH**-2), reach**2)
    return float(asked * ratio ** (asked / (asked + state.rounding)))


def change(asked: float, moved: float, reach: float = REACH) -> float:
    """The factor from a step that went `moved` to one that goes `asked`, in [1 / reach, reach]."""
    if not math.isfinite(moved) or asked <= 0:
        return 1 / reach
    if moved <= 0:  # less than rounding shows
        return reach
    return min(max(math.sqrt(asked / moved), 1 / reach), reach)


def policy_distance(old: Tensor, new: Tensor, mask: Tensor | None = None) -> DistanceSum:
    r"""Sum over tokens of :math:`KL(\pi_{old} \| \pi_{new})`, and their number.

    It is exact over the vocabulary (N, V). Of sampled tokens y alone (N,) it is
    :math:`e^{r} - 1 - r` with r = log q_y / p_y, which is never negative, and unbiased where they
    were sampled from the old policy: the mean of :math:`e^r` is then 1, that of -r the divergence.

    Args:
        old: log-probabilities before the step; of all tokens of the vocabulary, or of the sampled.
        new: the same after it.
        mask: (N,); tokens where it is zero do not count.

    Returns:
        Scalars in float32, or float64 where the log-probabilities are.

    Raises:
        ValueError: the shapes differ, or are neither.

    Choice: that they are log-probabilities is not checked, as the host would wait for the device at
    every step. Of logits, which add up to no probability of 1, the result means nothing; take their
    `log_softmax(-1)` first.
    """
    if old.shape != new.shape or old.ndim not in (1, 2):
        raise ValueError(
            "old and new must be log-probabilities of one shape, (N,) or (N, V), got "
            f"{tuple(old.shape)} and {tuple(new.shape)}; flatten batch and tokens to N"
        )
    if mask is not None and mask.shape != old.shape[:1]:
        raise ValueError(
            f"mask must have one value a token, ({len(old)},), got {tuple(mask.shape)}"
        )
    dtype = torch.promote_types(old.dtype, torch.float32)
    old, new = old.detach().to(dtype), new.detach().to(dtype)
    if old.ndim == 2:
        values = relative_entropy(old, new)
    else:
        ratio = log_ratio(new, old)
        values = ratio.expm1() - ratio
    kept = torch.ones_like(values, dtype=torch.bool) if mask is None else mask != 0
    return DistanceSum(torch.where(kept, values, 0.0).sum(), kept.sum().to(dtype))


_COLUMNS = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")


class StepTokens:
    """Log-probabilities of some tokens of the step at hand, under the model as it is.

    The first reading of a step is of the training forward's own hidden states, where they are
    given; the next ones run the model.

    Args:
        share: of the step's sequences with a loss, in (0, 1], at even distances in the order of the
            micro-batches, so that accumulation takes the same ones.
        exact: over the whole vocabulary, (N, V); else of the sampled tokens, (N,).
        limit: tokens at most, at even distances; (N, V) is held while the step is taken.
        temperature: divides the logits.
        of_every_batch: keep a sequence of every micro-batch, if without tokens, so that all ranks
            run a sharded model as often.
    """

    def __init__(
        self,
        share: float,
        *,
        exact: bool,
        limit: int,
        temperature: float,
        of_every_batch: bool = False,
    ) -> None:
        self._share, self._exact, self._limit = share, exact, limit
        self._temperature, self._of_every_batch = temperature, of_every_batch
        self._seen = 0
        self._dtype = torch.float32  # of the hidden states
        # Sequences by column, and as `kept` the loss's tokens in the flattened completions.
        self._rows: list[dict[str, Tensor]] = []

    def add(
        self, batch: dict[str, Tensor], loss_mask: Tensor, hidden: Tensor | None = None
    ) -> None:
        """Takes some sequences of a micro-batch, of which the loss keeps the tokens of `loss_mask`,
        (B, T); `hidden`, (B, T, H), is what predicts them, of a forward without dropout."""
        with_loss = [i for i, flag in enumerate((loss_mask != 0).any(-1).tolist()) if flag]
        taken = [i for place, i in enumerate(with_loss, self._seen) if self._takes(place)]
        self._seen += len(with_loss)
        if taken or self._of_every_batch:
            index = torch.tensor(taken or [0], device=loss_mask.device)
            kept = loss_mask[index].flatten().nonzero().squeeze(1)
            kept = kept if taken else kept[:0]
            rows = {name: batch[name][index] for name in _COLUMNS} | {"kept": kept}
            if hidden is not None:
                rows["hidden"] = hidden.detach()[index].flatten(0, 1)[kept]
            self._rows.append(rows)

    def _takes(self, place: int) -> bool:
        return math.ceil((place + 1) * self._share) > math.ceil(place * self._share)

    def forget(self) -> None:
        """The step is over."""
        self._seen, self._rows = 0, []

    @torch.no_grad()
    def log_probs(self, model: Any) -> Tensor | None:
        """(N, V) or (N,) in nats under a `SplitModel`, in evaluation mode and the training
        forward's autocast; None where the loss keeps no token."""
        parts = [self._hidden(model, rows) for rows in self._rows]
        gather(model.model, model.head.projection)  # on all ranks, also those without tokens
        if not any(len(hidden) for hidden, _ in parts):
            return None
        hidden, tokens = (torch.cat(part) for part in zip(*parts, strict=True))
        if len(hidden) > self._limit:
            places = torch.linspace(0, len(hidden) - 1, self._limit, device=hidden.device).long()
            hidden, tokens = hidden[places], tokens[places]
        if not self._exact:
            return tiled_token_logps(hidden, model.head, tokens, self._temperature)
        return tiled_log_probs(hidden, model.head, self._temperature)

    def log_probs_again(self, model: Any) -> Tensor | None:
        """As `log_probs`, rounded otherwise: with the embeddings changed by their last digit. None
        where the model computes neither in bfloat16 nor in 8 bits.

        Choice: of all that is computed, the first thing. The layers amplify it to the rounding of
        any two forwards that differ, as they do after a step of no size. In float16 and TF32 that
        is 64 times less, and not worth a forward.
        """
        if not self._is_coarse(model.model):
            return None
        with model.model.get_input_embeddings().register_forward_hook(_nudge):
            return self.log_probs(model)

    def _hidden(self, model: Any, rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        tokens, kept = rows["completion_ids"], rows["kept"]
        hidden = rows.pop("hidden", None)
        if hidden is None:
            ids = torch.cat([rows["prompt_ids"], tokens], 1)
            attention = torch.cat([rows["prompt_mask"], rows["completion_mask"]], 1)
            states = model.hidden_states(ids, attention, tokens.size(1))
            hidden = states.flatten(0, 1)[kept]
        self._dtype = hidden.dtype
        return hidden, tokens.flatten()[kept]

    def _is_coarse(self, model: Any) -> bool:
        kind = next(model.parameters()).device.type
        is_cast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if is_cast else self._dtype
        # A quantised base has hidden states in its model's type, and products in its own.
        products = {dtype, *(getattr(module, "compute_dtype", dtype) for module in model.modules())}
        return torch.bfloat16 in products or bool(getattr(model, "is_loaded_in_8bit", False))


def _nudge(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """The outputs changed by half a unit of bfloat16, up and down by turns."""
    signs = 1.0 - 2.0 * (torch.arange(output.size(-1), device=output.device) % 2)
    return (output.float() * (1.0 + torch.finfo(torch.bfloat16).eps / 2 * signs)).to(output.dtype)
