"""What a method for several domains is: an objective to differentiate, or an aggregator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from .statistics import RunningMeans


@dataclass(frozen=True)
class DomainTokens:
    """The n loss tokens of one domain.

    Args:
        hidden: (n, H) what the output head sees, differentiable.
        logits: (n, V) what it makes of that, differentiable.
        targets: (n,) the tokens to predict.
    """

    hidden: Tensor
    logits: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Evidence:
    """What a micro-batch says about K domains. A domain without tokens has weight 0 and zeros.

    Args:
        losses: (K,) mean losses L_k over the domain's tokens, in nats, differentiable.
        entropies: (K,) mean entropies H_k of the predictions at these tokens, in nats,
            differentiable.
        weights: (K,) weights w_k, which add up to 1.
        counts: (K,) numbers n_k of tokens.
        step: optimizer steps before this one.
        tokens: one entry a domain, for objectives that need them; else none.
    """

    losses: Tensor
    entropies: Tensor
    weights: Tensor
    counts: Tensor
    step: int = 0
    tokens: Sequence[DomainTokens] = ()

    def mean(self, values: Tensor) -> Tensor:
        """sum_k w_k v_k of (K,) values, ()."""
        return (self.weights * values).sum()


@dataclass(kw_only=True)
class Method(ABC):
    """What objectives and aggregators share. A subclass's own fields are its options.

    Args:
        domains: K.
        seed: of whatever is drawn at random.

    Attributes:
        figures: what it logs, filled as it works: numbers, or one number a domain.
        paper: title and arXiv number.
    """

    domains: int = 1
    seed: int = 0
    figures: RunningMeans = field(
        default_factory=RunningMeans, init=False, repr=False, compare=False
    )

    paper: ClassVar[tuple[str, str]]

    @classmethod
    def options(cls) -> tuple[str, ...]:
        """Names of the options."""
        common = {item.name for item in fields(Method)}
        return tuple(item.name for item in fields(cls) if item.init and item.name not in common)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to keep, as plain JSON values."""
        return {"figures": self.figures.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes `state_dict`'s."""
        self.figures.load_state_dict(state["figures"])


class Objective(Method):
    """Makes one loss of the domains' evidence, micro-batch by micro-batch."""

    needs_tokens: ClassVar[bool] = False  # `Evidence.tokens`, at the cost of full logits

    @abstractmethod
    def __call__(self, evidence: Evidence) -> Tensor:
        """The loss to differentiate, ()."""

    def finish_step(self, total: Callable[[Tensor], Tensor]) -> None:
        """Ends an optimizer step, on every rank; `total` sums over ranks."""

    def drop_step(self) -> None:
        """Forgets the micro-batches of a step that is not finished."""


class Aggregator(Method):
    """Makes one gradient of the domains' gradients, once an optimizer step, on every rank alike."""

    @abstractmethod
    def __call__(self, gradients: Tensor, weights: Tensor) -> Tensor:
        """One gradient (P,) of K.

        Args:
            gradients: (K, P) of the present domains' mean losses, all trained LoRA factors'
                elements in one row.
            weights: (K,) weights w_k, which add up to 1.
        """


@dataclass(kw_only=True)
class Penalised(Objective):
    """sum_k w_k L_k + lambda_t * penalty, lambda_t = lambda * min(1, t / warm-up steps) at step t.

    Choice: the weight rises linearly. The authors' programs let it jump after some steps, and start
    the optimizer anew there; a rise needs no new optimizer.

    Args:
        penalty_weight: lambda, 0 (plain fine-tuning) or more.
        warmup_steps: optimizer steps over which lambda_t rises from 0; 0 is at once.
    """

    penalty_weight: float = 1.0
    warmup_steps: int = 20

    def __post_init__(self) -> None:
        require("penalty_weight", self.penalty_weight, low=0)
        require("warmup_steps", self.warmup_steps, low=0)

    def __call__(self, evidence: Evidence) -> Tensor:
        penalty = self.penalty(evidence)
        self.figures.add("penalty", penalty)
        return evidence.mean(evidence.losses) + self.weight_at(evidence.step) * penalty

    def weight_at(self, step: int) -> float:
        """lambda_t, steps counted from 0."""
        if not self.warmup_steps:
            return self.penalty_weight
        return self.penalty_weight * min(1.0, step / self.warmup_steps)

    @abstractmethod
    def penalty(self, evidence: Evidence) -> Tensor:
        """The penalty without its weight, ()."""


def require(
    name: str, value: Any, low: float, high: float = float("inf"), *, is_whole: bool = False
) -> None:
    """Raises ValueError for what is no number (no whole number) in [low, high], or infinite."""
    is_number = type(value) is int or (not is_whole and isinstance(value, float))
    if not is_number or not low <= value <= high or value == float("inf"):
        limits = f"from {low} to {high}" if high < float("inf") else f"of {low} or more"
        kind = "whole number" if is_whole else "number"
        raise ValueError(f"{name}: expected a {kind} {limits}, found {value!r}")


def present_rows(weights: Tensor) -> list[int]:
    """Numbers of the domains that have weight."""
    return torch.nonzero(weights).flatten().tolist()  # type: ignore[no-any-return]
