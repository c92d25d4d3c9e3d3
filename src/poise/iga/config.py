"""Arguments of `IGATrainer`: TRL's for supervised fine-tuning, and Poise's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from ..machine import settle_precision
from .baselines import BASELINES, Baseline, make_baseline
from .config_checks import check_host, check_method, check_types, check_values
from .invariant import IGA
from .method import Aggregator


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class IGAConfig(SFTConfig):  # type: ignore[misc]
    """Configuration of [`IGATrainer`]: everything of TRL's `SFTConfig`, and the arguments below.

    What is done with the domains: `method`, `method_options`. "iga" is this trainer's own; others
    are what it is compared with, on the same batches (see [`poise.iga.baselines`]).

    What "iga" takes out, and how (see [`poise.iga.invariant.IGA`] for formulas and choices):
    `space`, `tau`, `tau_schedule`, `tau_warmup_steps`, `mask_scale`, `mask_eps`, `projection`,
    `projection_rank`, `projection_oversampling`, `update`, `applied_to`.

    Loss and batches: `domain_weights`, `domains`, `use_engine`. Two arguments of TRL's have another
    meaning or default: `per_device_train_batch_size` counts isomer sets, not sequences (`Choice`: a
    set is what the method compares, so a batch never holds a part of one), and
    `completion_only_loss` is on.

    Checkpoints: `exact_resume`.

    Choice: the direction space led in `experiments/shortcut_settings` and `experiments/shortcut`.
    The mask's and the projection's defaults are those that led in `experiments/isomers_settings`
    and `experiments/isomers`; on new seeds little is left of their lead there
    (`experiments/isomers_confirm`).

    Raises:
        ValueError: an argument outside its range, two that exclude each other, or one of the host's
            that mixes the sequences of a batch or changes their loss.
    """

    method: str = _option(
        "iga",
        "'iga', or a method to compare it with on the same batches: "
        + ", ".join(map(repr, BASELINES))
        + " ('erm' is plain fine-tuning), or 'torchjd:NAME' for any of TorchJD's aggregators.",
    )
    method_options: dict[str, Any] | str | None = _option(
        None,
        "Options of the method by name, as a mapping or in JSON: '{\"penalty_weight\": 3}' for "
        "'vrex'. 'iga' has arguments of its own instead.",
    )
    space: str = _option(
        "direction",
        "What is taken out: 'direction' (gradients are projected off the directions in which the "
        "domains' inputs differ; cheapest, no mask and no low-rank projection), or what the "
        "domains' gradients disagree on, masked in 'weight' (the paper's: whole matrices, in every "
        "micro-batch, and projected to a low rank) or 'factor' space (the LoRA factors; exact over "
        "micro-batches and ranks, no projection).",
    )
    tau: float = _option(
        1.0, "Temperature of the conflict mask exp(-tau * variance / scale); 0 is no mask."
    )
    tau_schedule: str = _option(
        "constant",
        "'constant', or 'linear': tau rises from 0 at the first step to its value over "
        "tau_warmup_steps.",
    )
    tau_warmup_steps: int = _option(
        20, "Optimizer steps over which tau_schedule='linear' raises tau."
    )
    mask_scale: str = _option(
        "snr",
        "What the variance is measured against: 'none' (the paper's), 'layer' (the layer's mean "
        "variance) or 'snr' (the squared mean gradient of the element).",
    )
    mask_eps: float = _option(
        1e-6, "Share of the layer's mean squared gradient that 'snr' adds to every element's."
    )
    projection: str = _option(
        "randomized",
        "Low-rank projection of the masked gradient: 'randomized' (warm-started), 'exact' (a full "
        "SVD: slow) or 'none'. Weight space only.",
    )
    projection_rank: int | None = _option(
        None, "Rank of the projection. None is the adapter's own."
    )
    projection_oversampling: int = _option(
        8, "Columns of the randomised projection beyond its rank."
    )
    update: str = _option(
        "chain",
        "From the projected gradient to the factors: 'chain' (chain rule, any optimizer) or "
        "'retraction' (one step on the manifold of low-rank matrices, plain SGD).",
    )
    applied_to: str = _option(
        "gradient",
        "What mask or directions act on: 'gradient', or 'update', what the optimizer makes of it, "
        "so that an adaptive optimizer cannot undo them. Factor and direction space.",
    )
    domain_weights: str = _option(
        "equal",
        "What domains weigh in the loss: 'equal' (mean of the domains' mean losses) or 'tokens' "
        "(mean over all tokens, as plain fine-tuning has it).",
    )
    use_engine: bool | None = _option(
        None,
        "Whether the engine acts on gradients. None: unless the setting is neutral (weight or "
        "factor space with tau 0 and no projection). False is plain fine-tuning on the same "
        "batches, with domain_weights, whatever the mask's settings; True goes through the engine "
        "also where it changes nothing.",
    )
    domains: list[str] | None = _option(
        None,
        "Domains of the training data; rows of others are an error. None takes all, in the order "
        "in which they first appear.",
    )
    exact_resume: bool = _option(
        True,
        "Save and restore what carries over from step to step (running means, the projection's "
        "warm starts) and pending figures with each checkpoint, "
        "so that a resumed run equals an uninterrupted one. Checkpoints carry a manifest; damaged "
        "ones are named and passed over.",
    )
    completion_only_loss: bool | None = _option(
        True, "Whether the loss is on the completion alone. False counts the prompt as well."
    )

    _VALID_DICT_FIELDS = [*SFTConfig._VALID_DICT_FIELDS, "method_options"]  # noqa: RUF012

    def __post_init__(self) -> None:
        settle_precision(self)
        super().__post_init__()
        check_types(self)
        check_method(self)
        check_values(self)
        self.iga()  # raises on values outside their range
        check_host(self)
        if self.save_only_model and self.exact_resume:
            raise ValueError(
                "save_only_model=True leaves out the optimizer, so a run cannot be resumed; set "
                "exact_resume=False as well"
            )

    def iga(self) -> IGA:
        """Mask and projection that these arguments describe."""
        return IGA(
            space=self.space,  # type: ignore[arg-type]
            tau=self.tau,
            scale=self.mask_scale,  # type: ignore[arg-type]
            eps=self.mask_eps,
            projection=self.projection,  # type: ignore[arg-type]
            rank=self.projection_rank,
            oversampling=self.projection_oversampling,
            update=self.update,  # type: ignore[arg-type]
            applied_to=self.applied_to,  # type: ignore[arg-type]
        )

    def baseline(self, domains: int = 1) -> Baseline | None:
        """The objective or aggregator that `method` names; None for "iga" and "erm".

        Args:
            domains: K.
        """
        if self.method == "iga":
            return None
        options: Any = self.method_options
        return make_baseline(self.method, options, domains, self.seed)

    @property
    def needs_engine(self) -> bool:
        """Whether gradients are taken apart by domain."""
        if self.method != "iga":
            return isinstance(self.baseline(), Aggregator)
        return not self.iga().is_neutral if self.use_engine is None else self.use_engine

    def tau_at(self, step: int) -> float:
        """Temperature of an optimizer step, counted from 0.

        tau, or tau * min(1, step / warm-up steps). `Choice`: the paper names no schedule.
        """
        if self.tau_schedule == "constant":
            return self.tau
        return self.tau * min(1.0, step / self.tau_warmup_steps)
