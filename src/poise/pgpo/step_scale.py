"""Scales an optimizer's steps by distance and information, in any torch loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from ..optimizers import follows_rate, parameters, refuse_mixed_decay, refuse_out_of_reach
from .distance import DistanceControl, DistanceState, DistanceSum, change, policy_distance, went
from .ranges import check_state
from .signal import SignalSum
from .viscosity import Viscosity, ViscosityState

_CORRECTIONS = 3  # measurements after a step that is corrected afterwards
_CLOSE = 0.05  # a correction below this is left
_FAR = 32.0  # the largest
_UNTOLD = 3  # steps in a row of which the loop did not tell how far they went
_COARSE = 10.0  # times the target: rounding in which a step is lost
_OVERSHOT = 100.0  # times the distance asked for: a step ten times too long


@dataclass(frozen=True)
class StepRecord:
    """What the last step did.

    Attributes:
        signal: in nats; None if no sequence was distilled.
        multiplier: of the step.
        asked: the distance that it asked for, in nats a token; None without distance control.
        moved: how far it went; None if that was not measured.
        rounding: what was taken off that, since rounding alone had added it.
        factor: what the viscosity made of the signal; of the distance, or the multiplier itself.
    """

    signal: float | None
    multiplier: float
    asked: float | None = None
    moved: float | None = None
    rounding: float = 0.0
    factor: float = 1.0


class StepScale:
    r"""Multiplies the steps of a torch optimizer by :math:`\rho_k`, its moments untouched.

    .. math:: \theta \leftarrow \theta - \eta\, \rho_k\, h_k

    where :math:`h_k` is what the optimizer makes of the clipped gradient.

    **By distance** (`distance`): :math:`\rho_k` is such that the policy moves by
    :math:`d\, g(I_k)` nats a token, g the viscosity's factor; see `DistanceControl`. How far a step
    went is measured by `policy`, which is called before and after each step, or told by the loop:
    `scale.moved(policy_distance(before, after))`, with log-probabilities of the same tokens.

    **By information alone** (no `distance`): the paper's form, :math:`\rho_k = g(I_k)`.
    `scale.observe(information_sum(information, mask))` adds a micro-batch's signal, which the next
    `optimizer.step()` sums over ranks and uses once; a step without an observed sequence has
    multiplier 1. Examples of both: docs/parts.md.

    The rate is changed in the optimizer's step pre-hook and restored in its post-hook, so that the
    scheduler does not see it. Optimizers whose change is not proportional to the rate (Rprop,
    Adafactor, ASGD; of other libraries what a trial on a toy parameter shows) are scaled between
    the parameters before and after the step, at the price of one copy of them.

    Args:
        optimizer: a torch optimizer (not a wrapper of one).
        viscosity: the law from signal to factor; by default a factor of 1.
        distance: the law from distance to multiplier. One of the two laws is needed.
        policy: log-probabilities of some of the step's tokens, (N, V) or (N,) of those that were
            sampled, under the model as it is; the same tokens at both calls, which are without
            gradients. None where this rank has no tokens. By default the loop calls `moved`.
        policy_again: the same before a step once more, rounded otherwise, as after a change of the
            inputs by their last digit; by how far the two differ is rounding, and taken off. For
            policies in bfloat16; None where nothing is to be taken off. Called in the first 8 steps
            and in every eighth after them.
        scale_weight_decay: whether decoupled weight decay is multiplied too. If not, the decay of
            the step is divided by :math:`\rho_k`, so it keeps its size.

    Raises:
        TypeError: not a torch optimizer, or one without step hooks (torchao's CPU offloading); a
            `distance` that is no `DistanceControl`.
        ValueError: neither law, a `policy` without distance control, or a correction afterwards
            without a `policy`; an optimizer that has a `StepScale` already, or whose step it
            cannot scale: L2 penalties in the moments, unless they are to be scaled too; LOMO and
            layer-wise ones, which step inside the backward; LBFGS; schedule-free ones.

    Warns of steps whose distance nobody told, of one that went a hundred times too far, of a
    multiplier at `rho_min` or `rho_max`, and of rounding in which a step is lost (Choice).

    Reference: PGPO (arXiv 2606.03620), the update for SGD and for adaptive optimizers.
    Choice: the paper does not say what becomes of weight decay; it keeps its size unless asked.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        viscosity: Viscosity | None = None,
        *,
        distance: DistanceControl | None = None,
        policy: Callable[[], Tensor | None] | None = None,
        policy_again: Callable[[], Tensor | None] | None = None,
        scale_weight_decay: bool = False,
    ) -> None:
        name = type(optimizer).__name__
        # accelerate's wrapper is a subclass too, but has no hooks of its own.
        if not isinstance(optimizer, Optimizer) or hasattr(optimizer, "optimizer"):
            raise TypeError(
                f"StepScale needs a torch.optim.Optimizer, got {name}; of a wrapper, pass the "
                "optimizer inside"
            )
        hooks = vars(optimizer).get("_optimizer_step_pre_hooks")
        if hooks is None:
            raise TypeError(
                f"{name} runs no step hooks, by which StepScale multiplies; choose an optimizer "
                "that does, such as torch.optim.AdamW"
            )
        if any(isinstance(getattr(hook, "__self__", None), StepScale) for hook in hooks.values()):
            raise ValueError(
                f"this {name} has a StepScale already, and would be multiplied twice; close() that "
                "one first, of a trainer by trainer.step_scale.close()"
            )
        if viscosity is None and distance is None:
            raise ValueError(
                "StepScale needs a law to scale steps by, found none: pass distance="
                "DistanceControl(...), or a Viscosity(sensitivity=...)"
            )
        if distance is not None and not isinstance(distance, DistanceControl):
            raise TypeError(
                f"distance: expected DistanceControl(target=...), found {distance!r}; it holds the "
                "distance in nats a token"
            )
        if policy_again is not None and policy is None:
            raise ValueError(
                "policy_again= finds the rounding of what policy= measures, found no policy; pass "
                "both, or leave it out"
            )
        if policy is not None and distance is None:
            raise ValueError(
                "policy= measures for distance control, found none: pass distance="
                "DistanceControl(...), or leave policy out"
            )
        if distance is not None and distance.afterwards and policy is None:
            raise ValueError(
                "DistanceControl(afterwards=True) measures inside the step, expected a policy, a "
                "function that returns log-probabilities, found None"
            )
        viscosity = viscosity or Viscosity(sensitivity=0.0)
        if viscosity.sensitivity != 0 or distance is not None:
            refuse_out_of_reach(optimizer)
            if not scale_weight_decay:
                refuse_mixed_decay(optimizer)
        self.optimizer = optimizer
        self.viscosity = viscosity
        self.distance: Any = distance  # a DistanceControl or None, and its DistanceState
        self.distance_state: Any = None if distance is None else distance.init()
        self.policy, self.policy_again = policy, policy_again
        self.scale_weight_decay = scale_weight_decay
        self.state: ViscosityState = viscosity.init()
        self.last = StepRecord(signal=None, multiplier=1.0)
        self._base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._pending: SignalSum | None = None
        self._is_skipped = False  # the next step
        self._has_distance = False  # the last step, which the loop has not told yet
        self._untold = 0  # such steps in a row
        self._warned: set[str] = set()
        self._old: Tensor | None = None  # the policy before the step
        self._saved_groups: list[dict[str, Any]] = []
        self._saved_params: list[tuple[Tensor, Tensor]] = []
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def observe(self, signal: SignalSum) -> None:
        """Adds a micro-batch's signal (see `information_sum`) to that of the step that follows."""
        signal = SignalSum(*(part.detach() for part in signal))  # no graph outlives its backward
        if self._pending is not None:
            signal = SignalSum(*(a + b for a, b in zip(self._pending, signal, strict=True)))
        self._pending = signal

    def discard(self) -> None:
        """Forgets what was said of the next step since the last, as when it is not taken."""
        self._pending, self._is_skipped = None, False

    def skip(self) -> None:
        """Lets the next step through as it is, unmeasured: its gradients were taken away."""
        self.discard()
        self._is_skipped = True

    def moved(self, distance: DistanceSum, rounding: DistanceSum | None = None) -> None:
        """Tells how far the last step moved the policy (see `policy_distance`).

        With several ranks every one calls this after every step, with its own tokens.

        Args:
            distance: from the log-probabilities before the step to those after it.
            rounding: from those before it to the same once more, rounded otherwise, as
                `policy_again` has it; now and then, on all ranks, for a policy in bfloat16.

        Raises:
            TypeError: not a `DistanceSum`, as `policy_distance` returns.
            ValueError: there is no distance control, or a `policy` that measures in its place; a
                distance further below 0 than it was to be above it.
        """
        if self.distance is None:
            raise ValueError("moved needs StepScale(..., distance=DistanceControl(...))")
        if self.policy is not None:
            raise ValueError("moved is for loops without policy=, which measures every step itself")
        for part in (distance,) if rounding is None else (distance, rounding):
            if not isinstance(part, DistanceSum):
                raise TypeError(
                    "moved expected a DistanceSum, as policy_distance(before, after) returns, "
                    f"found {type(part).__name__}"
                )
        moved = self._mean_over_ranks(distance)
        if rounding is not None:
            self._take_rounding(rounding)
        if self._has_distance:  # not after a step that was skipped, or of a rate of 0
            self._record(moved)
            self._warn_of_distance()
        self._has_distance, self._untold = False, 0

    def close(self) -> None:
        """Takes the hooks off the optimizer, which is left with its own rates."""
        self._restore()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """The states of both laws, as plain JSON values."""
        state = asdict(self.state)
        return state if self.distance is None else state | {"distance": asdict(self.distance_state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`'s output.

        Warns where it was saved with distance control and there is none now, or the reverse.

        Raises:
            ValueError: it is none of a `StepScale`, or a part of one.
        """
        check_state(state, ("reference", "steps"), optional=("distance",))
        distance = state.get("distance")
        if distance is not None:
            names = ("scale", "moved", "asked")
            check_state(distance, names, "state['distance']", optional=("rounding", "steps"))
        self.state = ViscosityState(state["reference"], state["steps"])
        if (distance is None) != (self.distance is None):
            had, has = ("with", "without") if distance else ("without", "with")
            warnings.warn(
                f"this state was saved {had} distance control and goes on {has} it; resume with "
                "the multiplier that it was saved with, or expect a break in the steps' size",
                stacklevel=2,
            )
        if self.distance is not None and distance is not None:
            self.distance_state = DistanceState(**distance)

    # The parts of one optimizer step, in order.

    @torch.no_grad()
    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._restore()  # a step that raised has left its rates behind
        if getattr(optimizer, "found_inf", False):  # a fused step, which a gradient scaler drops
            self.skip()
        if self._has_distance and self.policy is None:
            self._count_untold(
                f"StepScale was not told how far the last {_UNTOLD} steps moved the policy, so it "
                "cannot find their multiplier; call moved(policy_distance(before, after)) after "
                "each step, or pass policy="
            )
        self.last = self._take_multiplier()
        rho = self.last.multiplier
        if self.policy is not None and self._has_distance:
            self._old = self.policy()
            self._read_rounding()
        if rho != 1.0:  # else exactly the plain step
            for group in self._groups:
                self._saved_groups.append(
                    {name: group[name] for name in ("lr", "weight_decay") if name in group}
                )
                if self._follows_rate:
                    group["lr"] = group["lr"] * rho
                if not self.scale_weight_decay and group.get("weight_decay"):
                    group["weight_decay"] = group["weight_decay"] / rho
        if (self._corrects and self._has_distance) or (rho != 1.0 and not self._follows_rate):
            params = (p for group in self._groups for p in group["params"])
            self._saved_params = [(p, p.detach().clone()) for p in params if p.requires_grad]

    def _take_multiplier(self) -> StepRecord:
        pending, self._pending, self._has_distance = self._pending, None, False
        signal, factor = self._mean_over_ranks(pending), 1.0
        if signal is not None and math.isfinite(signal):  # whoever lets it through: the plain step
            factor, self.state = self.viscosity.step(signal, self.state)
        if self._is_skipped:
            return StepRecord(signal, 1.0)
        if self.distance is None:
            return StepRecord(signal, factor, factor=factor)
        share = self._rate_share()
        asked = self.distance.asked(signal, factor, share)
        rho, self.distance_state = self.distance.step(asked, share, self.distance_state)
        self._has_distance = share > 0  # a step of nothing has none
        return StepRecord(signal, rho, asked, factor=factor)

    def _rate_share(self) -> float:
        """Of its base, what a scheduler has left of the learning rate."""
        for group, first in zip(self._groups, self._base_rates, strict=False):
            if base := float(group.get("initial_lr", first)):
                return float(group["lr"]) / base
        return 1.0

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        rho = self.last.multiplier
        if rho != 1.0 and not self._follows_rate:
            self._rescale(rho)
        if self.policy is not None and self._has_distance:
            self._record(self._measure())
            if self._corrects:
                self._correct()
            if self.last.moved is None:
                self._count_untold(
                    f"policy= returned no log-probabilities around the last {_UNTOLD} steps, so "
                    "their multiplier stands still; return those of some tokens of the step at hand"
                )
            else:
                self._untold = 0
                self._warn_of_distance()
        self._is_skipped, self._old = False, None
        self._restore()
        if self._pending is not None:
            self.discard()
            raise RuntimeError(
                "expected a step's signal before optimizer.step(), found one observed inside it, "
                "by its closure, which would count for the next step; call observe before the step"
            )

    def _rescale(self, factor: float) -> None:
        for param, before in self._saved_params:
            param.copy_(before + factor * (param - before))

    def _restore(self) -> None:
        for group, saved in zip(self._groups, self._saved_groups, strict=False):
            group.update(saved)
        self._saved_groups, self._saved_params = [], []

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @cached_property
    def _follows_rate(self) -> bool:
        return follows_rate(self.optimizer)

    # How far a step went.

    @property
    def _corrects(self) -> bool:
        return self.distance is not None and bool(self.distance.afterwards)

    def _measure(self) -> float | None:
        assert self.policy is not None
        distance, new = None, self.policy()
        if self._old is not None and new is not None:
            distance = policy_distance(self._old, new)
        return self._mean_over_ranks(distance)

    def _record(self, moved: float | None) -> None:
        self._refuse_below_zero(moved)
        state = self.distance_state = self.distance.moved(moved, self.distance_state)
        self.last = replace(self.last, moved=state.moved, rounding=state.rounding)

    def _correct(self) -> None:
        """Moves the parameters along the step until it is as long as was asked for."""
        for _ in range(_CORRECTIONS - 1):
            asked, moved = self.last.asked, went(self.distance_state, _FAR)
            if not asked or not self.last.moved or moved is None:
                return
            rho = self.distance.clip(self.last.multiplier * change(asked, moved, _FAR))
            factor = rho / self.last.multiplier
            if abs(factor - 1) < _CLOSE:
                return
            self._rescale(factor)
            scale = self.distance_state.scale * factor
            self.distance_state = replace(self.distance_state, scale=scale)
            self.last = replace(self.last, multiplier=rho)
            self._record(self._measure())

    def _read_rounding(self) -> None:
        if self.policy_again is None or not self.distance.reads_rounding(self.distance_state):
            return
        distance, again = None, self.policy_again()
        if self._old is not None and again is not None:
            distance = policy_distance(self._old, again)
        elif self._old is not None:  # tokens, and nothing to take off
            nothing = self._old.new_zeros((), dtype=torch.float32)
            distance = DistanceSum(nothing, nothing + len(self._old))
        self._take_rounding(distance)

    def _take_rounding(self, distance: DistanceSum | None) -> None:
        if (rounding := self._mean_over_ranks(distance)) is None:
            return
        self._refuse_below_zero(rounding)
        self.distance_state = self.distance.rounded(rounding, self.distance_state)
        if rounding > _COARSE * self.distance.target:
            self._warn(
                "rounding",
                f"{rounding:.2g} nats a token were told to be rounding, where a step is asked for "
                f"{self.distance.target:.2g}, too little to be told apart: take both readings "
                "before the step, measure in float32, or ask for more",
            )

    def _refuse_below_zero(self, distance: float | None) -> None:
        if distance is not None and distance < -self.distance.target:  # beyond rounding
            raise ValueError(
                f"expected a distance of 0 or more, found {distance:.3g} nats: what is measured is "
                "no log-probability; take log_softmax(-1) of logits, in float32"
            )

    def _mean_over_ranks(self, sums: SignalSum | DistanceSum | None) -> float | None:
        """A sum over its count, of all ranks; None where that is 0. Every rank calls this."""
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            device = self._device()
            wide = torch.float32 if device.type == "mps" else torch.float64
            own = torch.zeros(2) if sums is None else torch.stack(sums)
            both = own.to(device, wide)  # in one type, whatever each rank observed
            dist.all_reduce(both)
        elif sums is None:
            return None
        else:
            both = torch.stack(sums)
        total, count = both.tolist()
        return total / count if count else None

    def _device(self) -> torch.device:
        return next(parameters(self.optimizer)).device

    # What is told of it, each once.

    def _count_untold(self, text: str) -> None:
        self._untold += 1
        if self._untold == _UNTOLD:
            warnings.warn(text, stacklevel=6)

    def _warn_of_distance(self) -> None:
        moved, asked, rho = self.last.moved, self.last.asked, self.last.multiplier
        if moved is None:
            return
        went_far = f"moved the policy by {moved:.2g} nats a token"
        if not math.isfinite(moved):
            self._warn(
                "not finite",
                "the distance of a step is not a number, so the next ones are halved: look at the "
                "log-probabilities that it is measured on, or at the weights",
            )
        elif asked and moved > _OVERSHOT * max(asked, self.last.rounding):
            self._warn(
                "overshot",
                f"a step {went_far}, where {asked:.2g} were asked for: its gradient was far larger "
                "than those before it, or the policy is measured with dropout. If it happens "
                "again, correct steps once they are taken (afterwards=True of DistanceControl, "
                "correct_steps=True of PGPOConfig), or lower rho_max",
            )
        elif asked and moved < asked and rho >= self.distance.rho_max:
            self._warn(
                "at rho_max",
                f"the multiplier is at rho_max={rho:g} and a step {went_far} of {asked:.2g}: the "
                "gradients vanish, the learning rate is too small, or what is measured is not "
                "what is trained",
            )
        elif asked and moved > asked and rho <= self.distance.rho_min:
            self._warn(
                "at rho_min",
                f"the multiplier is at rho_min={rho:g} and a step still {went_far} of {asked:.2g}: "
                "the learning rate is too large, or what is measured is not the step but dropout, "
                "or bfloat16's rounding (measure in float32, or pass policy_again)",
            )

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(text, stacklevel=6)
