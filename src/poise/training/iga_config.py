"""Arguments of `IGATrainer`: TRL's for supervised fine-tuning, and Poise's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from ..core.conflict import SCALES
from ..methods.iga import IGA, PROJECTIONS, SPACES, UPDATES

TAU_SCHEDULES = ("constant", "linear")
DOMAIN_WEIGHTS = ("equal", "tokens")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class IGAConfig(SFTConfig):  # type: ignore[misc]
    """Configuration of [`IGATrainer`]: everything of TRL's `SFTConfig`, and the arguments below.

    Mask and projection (see [`poise.methods.iga.IGA`] for the formulas and for what is our choice):
    `space`, `tau`, `tau_schedule`, `tau_warmup_steps`, `mask_scale`, `mask_eps`, `projection`,
    `projection_rank`, `projection_oversampling`, `update`.

    Loss and batches: `domain_weights`, `domains`, `use_engine`. Two arguments of TRL's have another
    meaning or default: `per_device_train_batch_size` counts isomer sets, not sequences (`Choice`: a
    set is what the method compares, so a batch never holds a part of one), and
    `completion_only_loss` is on.

    Checkpoints: `exact_resume`.

    Raises:
        ValueError: an argument outside its range, two that exclude each other, or one of the host's
            that mixes the sequences of a batch or changes their loss.
    """

    space: str = _option(
        "weight",
        "Where gradients are compared: 'weight' (the paper's: whole matrices, masked and projected "
        "in every micro-batch) or 'factor' (the LoRA factors; cheaper, exact over micro-batches "
        "and ranks, no projection).",
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
    domain_weights: str = _option(
        "equal",
        "What domains weigh in the loss: 'equal' (mean of the domains' mean losses) or 'tokens' "
        "(mean over all tokens, as plain fine-tuning has it).",
    )
    use_engine: bool | None = _option(
        None,
        "Whether gradients are taken apart by domain. None: unless the setting is neutral (tau 0 "
        "and no projection). False is plain fine-tuning on the same batches, whatever the mask's "
        "settings; True goes through the engine also where it changes nothing.",
    )
    domains: list[str] | None = _option(
        None,
        "Domains of the training data; rows of others are an error. None takes all, in the order "
        "in which they first appear.",
    )
    exact_resume: bool = _option(
        True,
        "Save and restore the projection's warm starts and pending figures with each checkpoint, "
        "so that a resumed run equals an uninterrupted one. Checkpoints carry a manifest; damaged "
        "ones are named and passed over.",
    )
    completion_only_loss: bool | None = _option(
        True, "Whether the loss is on the completion alone. False counts the prompt as well."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_values()
        self.method()  # raises on values outside their range
        self._check_host()
        if self.save_only_model and self.exact_resume:
            raise ValueError(
                "save_only_model=True leaves out the optimizer, so a run cannot be resumed; set "
                "exact_resume=False as well"
            )

    def method(self) -> IGA:
        """The method's settings that these arguments describe."""
        return IGA(
            space=self.space,  # type: ignore[arg-type]
            tau=self.tau,
            scale=self.mask_scale,  # type: ignore[arg-type]
            eps=self.mask_eps,
            projection=self.projection,  # type: ignore[arg-type]
            rank=self.projection_rank,
            oversampling=self.projection_oversampling,
            update=self.update,  # type: ignore[arg-type]
        )

    @property
    def needs_engine(self) -> bool:
        """Whether gradients are taken apart by domain."""
        return not self.method().is_neutral if self.use_engine is None else self.use_engine

    def tau_at(self, step: int) -> float:
        """Temperature of an optimizer step, counted from 0.

        tau, or tau * min(1, step / warm-up steps). `Choice`: the paper names no schedule.
        """
        if self.tau_schedule == "constant":
            return self.tau
        return self.tau * min(1.0, step / self.tau_warmup_steps)

    def _check_values(self) -> None:
        known = {
            "space": SPACES,
            "tau_schedule": TAU_SCHEDULES,
            "mask_scale": SCALES,
            "projection": PROJECTIONS,
            "update": UPDATES,
            "domain_weights": DOMAIN_WEIGHTS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}"
                )
        for name in ("tau", "mask_eps"):
            if isinstance(getattr(self, name), bool | str):
                raise ValueError(f"{name} must be a number, got {getattr(self, name)!r}")
        if self.projection_rank is not None and self.projection_rank < 1:
            raise ValueError(f"projection_rank must be at least 1, got {self.projection_rank!r}")
        if self.projection_oversampling < 0:
            raise ValueError(
                f"projection_oversampling must be at least 0, got {self.projection_oversampling!r}"
            )
        if self.tau_schedule == "linear" and self.tau_warmup_steps < 1:
            raise ValueError(
                f"tau_warmup_steps must be at least 1 with tau_schedule='linear', got "
                f"{self.tau_warmup_steps!r}"
            )
        if self.domains is not None and not 0 < len(self.domains) == len(set(self.domains)):
            raise ValueError(
                f"domains must be different names, at least one, or None; got {self.domains!r}"
            )

    def _check_host(self) -> None:
        """Refuses what the host can do and a batch of isomer sets cannot."""
        refused = {
            "packing": self.packing or self.eval_packing,
            "padding_free": self.padding_free,
            "loss_type": self.loss_type != "nll",
            "label_smoothing_factor": self.label_smoothing_factor != 0,
            "use_liger_kernel": self.use_liger_kernel,
            "torch_compile": self.torch_compile,
            "auto_find_batch_size": self.auto_find_batch_size,
            "train_sampling_strategy": self.train_sampling_strategy
            in ("group_by_length", "batch_rebalance"),
            "dataset_kwargs": (self.dataset_kwargs or {}).get("skip_prepare_dataset"),
        }
        for name, is_set in refused.items():
            if is_set:
                found = getattr(self, name)
                raise ValueError(f"{name}={found!r} does not work with IGA: {_REASONS[name]}")


_REASONS = {
    "packing": "it joins sequences of several domains in one row; set packing=False",
    "padding_free": "it joins sequences of several domains in one row; set padding_free=False",
    "loss_type": "domains are compared by their mean log-loss; set loss_type='nll'",
    "label_smoothing_factor": "domains are compared by their mean log-loss; set it to 0",
    "use_liger_kernel": "it replaces layers whose gradients are taken apart; set it to False",
    "torch_compile": "compiled layers pass over the engine's hooks; set it to False",
    "auto_find_batch_size": "a batch is made of whole isomer sets; set "
    "per_device_train_batch_size to fewer sets, and gradient_accumulation_steps to more",
    "train_sampling_strategy": "isomer sets have no length of their own; set it to 'random' or "
    "'sequential'",
    "dataset_kwargs": "isomer sets are made of the rows that are prepared; rows that have "
    "input_ids are not tokenised again, so leave out skip_prepare_dataset",
}
