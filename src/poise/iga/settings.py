"""What trains on several domains: Invariant Gradient Alignment, an objective, or an aggregator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from torch import Tensor

from .adapters import RunningMeans
from .mask import ConflictMask, Scale

Space = Literal["weight", "factor", "direction"]
Projection = Literal["randomized", "exact", "none"]
Update = Literal["chain", "retraction"]
Target = Literal["gradient", "update"]
CHOICES: dict[str, tuple[str, ...]] = {
    "space": get_args(Space),
    "projection": get_args(Projection),
    "update": get_args(Update),
    "applied_to": get_args(Target),
}


@dataclass(frozen=True)
class IGA:
    """Invariant Gradient Alignment.

    For every adapted matrix W = W0 + s B A and domains k with mean losses L_k:
    G_k = dL_k/dW; G = sum_k w_k G_k; V = sum_k w_k (G_k - G)^2; M = exp(-tau V / scale);
    P = rank-r truncated SVD of M * G; from P to the factors A and B. A batch with one domain is
    plain fine-tuning, without mask and projection.

    Args:
        space: "weight": as above, the paper's form. "factor": variance and mask on the gradients
            of A and B themselves, no projection; cheaper, and exact over micro-batches and ranks.
            "direction" (default): no mask; the gradient is projected off the directions in which
            the domains' mean inputs differ, see `poise.iga.direction_space`; cheapest.
        tau: temperature of the mask; 0 is no mask. Direction space refuses it, and the arguments
            below but `applied_to`.
        scale: what the variance is measured against, see `ConflictMask`.
        eps: what is added to that, see `ConflictMask`.
        projection: "randomized" (warm-started subspace iteration), "exact" (a full SVD of every
            matrix: slow), or "none" (M * G goes to the factors as it is). Weight space only.
        rank: of the projection; None is the adapter's own.
        oversampling: columns of the subspace iteration beyond the rank.
        update: "chain": dA = s B^T P, dB = s P A^T, for any optimizer. "retraction": the factors'
            gradient is such that one plain SGD step makes B A the truncated SVD of
            B A - (learning rate / s) P. Weight space with a projection only.
        applied_to: "gradient": the optimizer sees what mask or projection leave. "update": they act
            on what the optimizer makes of the gradient, so that an adaptive one, which divides by
            the gradient's own size, cannot undo them. Factor space masks the step, by running means
            of the domains' gradients, and gives it back its length. Direction space keeps A itself
            off the directions. Needs `GradientEngine.follow(optimizer)`. Not in weight space.

    Raises:
        ValueError: a value outside its range, or settings that exclude each other.

    Reference: IGA (arXiv 2606.05025), of which the abstract is public.
    Choice: everything that the abstract leaves open, which is all but the mask's exponential and
    the truncated SVD.
    """

    space: Space = "direction"
    tau: float = 1.0
    scale: Scale = "snr"
    eps: float = 1e-6
    projection: Projection = "randomized"
    rank: int | None = None
    oversampling: int = 8
    update: Update = "chain"
    applied_to: Target = "gradient"

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
        require("tau", self.tau, low=0)
        if self.rank is not None:
            require("rank", self.rank, low=1, is_whole=True)
        require("oversampling", self.oversampling, low=0, is_whole=True)
        ConflictMask(self.scale, self.eps)  # raises
        if self.update == "retraction" and (self.space != "weight" or self.projection == "none"):
            raise ValueError(
                "update: 'retraction' moves along a low-rank gradient of the matrix; expected "
                f"space 'weight' and a projection, found {self.space!r} and {self.projection!r}"
            )
        if self.applied_to == "update" and self.space == "weight":
            raise ValueError(
                "applied_to: 'update' acts on steps of the factors; expected space 'factor' or "
                "'direction', found 'weight', whose mask is of whole matrices"
            )
        for option in fields(self) if self.space == "direction" else ():
            value = getattr(self, option.name)
            if option.name not in ("space", "applied_to") and value != option.default:
                raise ValueError(
                    f"{option.name}={value!r} shapes a mask or its projection, expected none in "
                    "space 'direction', which has neither; choose space 'weight' or 'factor'"
                )

    @property
    def mask(self) -> ConflictMask:
        """The law of the mask."""
        return ConflictMask(self.scale, self.eps)

    @property
    def is_neutral(self) -> bool:
        """Whether the aligned gradient is the plain one by construction."""
        has_projection = self.space == "weight" and self.projection != "none"
        return self.space != "direction" and self.tau == 0 and not has_projection


# What IGA is compared with, see `baselines`.


class DomainTokens(NamedTuple):
    """The n loss tokens of one domain, differentiable."""

    hidden: Tensor  # (n, H), what the output head sees
    logits: Tensor  # (n, V), what it makes of that
    targets: Tensor  # (n,), the tokens to predict


@dataclass(frozen=True)
class Evidence:
    """What a micro-batch says about K domains. A domain without tokens has weight 0 and zeros."""

    losses: Tensor  # (K,) mean losses L_k over the domain's tokens, in nats, differentiable
    entropies: Tensor  # (K,) mean entropies H_k of the predictions there, likewise
    weights: Tensor  # (K,) weights w_k, which add up to 1
    counts: Tensor  # (K,) numbers n_k of tokens
    step: int = 0  # optimizer steps before this one
    tokens: Sequence[DomainTokens] = ()  # one a domain, for objectives that need them

    def mean(self, values: Tensor) -> Tensor:
        """sum_k w_k v_k of (K,) values, ()."""
        return (self.weights * values).sum()


@dataclass(kw_only=True)
class Method(ABC):
    """What objectives and aggregators share. A subclass's own fields are its options.

    Attributes:
        figures: what it logs, filled as it works: numbers, or one number a domain.
    """

    domains: int = 1  # K
    seed: int = 0  # of whatever is drawn at random
    figures: RunningMeans = field(
        default_factory=RunningMeans, init=False, repr=False, compare=False
    )

    paper: ClassVar[tuple[str, str]]  # title and arXiv number

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
        """One gradient (P,) of the (K, P) of the present domains' mean losses, all trained LoRA
        factors' elements in one row, and of their (K,) weights w_k, which add up to 1."""


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
        penalty, share = self.penalty(evidence), 1.0
        self.figures.add("penalty", penalty)
        if self.warmup_steps:
            share = min(1.0, evidence.step / self.warmup_steps)
        return evidence.mean(evidence.losses) + self.penalty_weight * share * penalty

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
