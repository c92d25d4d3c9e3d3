"""The settings of Invariant Gradient Alignment, and which of them exclude each other."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from .mask import ConflictMask, Scale
from .method import require

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
        scale, eps: what the variance is measured against, see `ConflictMask`.
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
                    f"{option.name}={value!r} shapes a mask or its projection, expected none of "
                    "these in space 'direction', which has neither; choose space 'weight' or "
                    "'factor'"
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
