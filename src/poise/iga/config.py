"""Arguments of `IGATrainer`: TRL's for supervised fine-tuning, and Poise's."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from ..optimizers import refuse_steps_in_backward
from ..precision import settle_precision
from ..trl.preflight import check_json
from .baselines import BASELINES, Baseline, make_baseline
from .domains import WEIGHTS
from .settings import IGA, Aggregator, require

GRADIENTS = "the gradients that are taken apart by domain"
# Arguments that describe `IGA`: its field -> ours.
IGA_FIELDS = {
    "space": "iga_space",
    "tau": "tau",
    "scale": "mask_scale",
    "eps": "mask_eps",
    "projection": "projection",
    "rank": "projection_rank",
    "oversampling": "projection_oversampling",
    "update": "iga_update",
    "applied_to": "iga_applied_to",
}
_SCHEDULE = ("tau_schedule", "tau_warmup_steps")
# Names of 0.1, accepted for one release.
OLD_NAMES = ("method", "method_options", "space", "update", "applied_to", "domains")


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class IGAConfig(SFTConfig):  # type: ignore[misc]
    """Configuration of [`IGATrainer`]: everything of TRL's `SFTConfig`, and the arguments below.

    [`poise.iga.settings.IGA`] has the formulas of `iga_space` to `iga_applied_to`,
    [`poise.iga.baselines`] those of the other methods. `per_device_train_batch_size` counts
    sequences, as in TRL. It must be a multiple of the number of domains: a set is what the method
    compares, so a batch never holds a part of one. `completion_only_loss` is on by default.

    The names of 0.1 (`method`, `method_options`, `space`, `update`, `applied_to`, `domains`) are
    accepted for one release, with a FutureWarning.

    Choice: the direction space led in `experiments/shortcut_settings` and `experiments/shortcut`.
    The mask's and the projection's defaults are those that led in `experiments/isomers_settings`
    and `experiments/isomers`; on new seeds little is left of their lead there
    (`experiments/isomers_confirm`).

    Raises:
        ValueError: an argument outside its range, two that exclude each other, or one of TRL's that
            mixes the sequences of a batch or changes their loss.
    """

    iga_method: str = _option(
        "iga",
        "'iga', or a method to compare it with on the same batches: "
        + ", ".join(map(repr, BASELINES))
        + " ('erm' is plain fine-tuning), or 'torchjd:NAME' for any of TorchJD's aggregators.",
    )
    iga_method_options: dict[str, Any] | str | None = _option(
        None,
        "Options of the method by name, as a mapping or in JSON: '{\"penalty_weight\": 3}' for "
        "'vrex'. 'iga' has arguments instead.",
    )
    iga_space: str = _option(
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
    iga_update: str = _option(
        "chain",
        "From the projected gradient to the factors: 'chain' (chain rule, any optimizer) or "
        "'retraction' (one step on the manifold of low-rank matrices, plain SGD).",
    )
    iga_applied_to: str = _option(
        "gradient",
        "What mask or directions act on: 'gradient', or 'update', what the optimizer makes of it, "
        "so that an adaptive optimizer cannot undo them. Factor and direction space.",
    )
    domain_weights: str = _option(
        "equal",
        "What domains weigh in the loss: 'equal' (mean of the domains' mean losses) or 'tokens' "
        "(mean over all tokens, as plain fine-tuning has it).",
    )
    iga_domains: list[str] | None = _option(
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

    # Old names.
    method: str | None = None
    method_options: dict[str, Any] | str | None = None
    space: str | None = None
    update: str | None = None
    applied_to: str | None = None
    domains: list[str] | None = None

    _VALID_DICT_FIELDS = [  # noqa: RUF012
        *SFTConfig._VALID_DICT_FIELDS,
        "iga_method_options",
        "method_options",
    ]

    def __post_init__(self) -> None:
        self._take_old_names()
        check_json(self)
        settle_precision(self)
        super().__post_init__()
        self._check_values()
        self._check_method()
        self._refuse_trl()

    def _take_old_names(self) -> None:
        given = [name for name in OLD_NAMES if getattr(self, name) is not None]
        for old in given:
            new = f"iga_{old}"
            warnings.warn(
                f"{old} is {new} now; its old name goes with the next release "
                "(per_device_train_batch_size counts sequences now, not isomer sets)",
                FutureWarning,
                stacklevel=4,
            )
            if not self._is_default(new):
                raise ValueError(f"{old} is the old name of {new}, found both; leave {old} out")
            setattr(self, new, getattr(self, old))
            setattr(self, old, None)
        if given and not self._is_default("per_device_train_batch_size"):
            raise ValueError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} counts sequences "
                f"now, as in TRL; beside {given[0]}, an argument's old name, it may mean isomer "
                f"sets. Multiply it by the number of domains, and write iga_{given[0]}"
            )

    def _is_default(self, name: str) -> bool:
        is_same: bool = getattr(self, name) == type(self).__dataclass_fields__[name].default
        return is_same

    def _check_values(self) -> None:
        for name, values in (
            ("tau_schedule", ("constant", "linear")),
            ("domain_weights", WEIGHTS),
            ("exact_resume", (True, False)),
        ):
            if (found := getattr(self, name)) not in values:
                known = ", ".join(map(str, values))
                raise ValueError(f"{name}: expected one of {known}, found {found!r}")
        least = 1 if self.tau_schedule == "linear" else 0
        require("tau_warmup_steps", self.tau_warmup_steps, low=least, is_whole=True)
        if self.save_only_model and self.exact_resume:
            raise ValueError(
                "save_only_model=True leaves out the optimizer, so a run cannot be resumed; set "
                "exact_resume=False as well"
            )
        names = self.iga_domains
        is_list = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
        if names is not None and not (is_list and 0 < len(names) == len(set(names))):
            raise ValueError(
                f"iga_domains: expected a list of different names, or none, found {names!r}"
            )

    def _check_method(self) -> None:
        """The method's name and options, and that no option of another is set."""
        unused, reason = (*IGA_FIELDS.values(), *_SCHEDULE), ""
        if self.iga_method != "iga":
            self.baseline()  # raises on unknown names and options, and values outside their range
            reason = (
                f"belongs to iga_method 'iga', found {self.iga_method!r}; leave it out (options of "
                "other methods go into iga_method_options)"
            )
        elif self.iga_method_options:
            raise ValueError(
                "iga_method_options: expected none for iga_method 'iga', whose settings are "
                f"arguments (tau, mask_scale, ...), found {self.iga_method_options!r}"
            )
        else:
            self.iga()  # raises on values outside their range
            unused = _SCHEDULE if self.iga_space == "direction" else ()
            reason = "shapes a mask, and iga_space 'direction' has none"
        for name in unused:
            if not self._is_default(name):
                raise ValueError(f"{name}={getattr(self, name)!r} {reason}")

    def _refuse_trl(self) -> None:
        """Refuses what TRL can do and a batch of isomer sets cannot."""
        if self.needs_engine:
            refuse_steps_in_backward(self.optim, GRADIENTS)
        joins = "it joins sequences of several domains in one row; set it to False"
        passes = "compiled layers pass over the engine's hooks; set it to False"
        replaces = "it replaces layers whose gradients are taken apart; set it to False"
        compares = "domains are compared by their mean log-loss; leave it out"
        sizes = "a batch is of whole isomer sets; lower per_device_train_batch_size yourself"
        lengths = "isomer sets have no length; set it to 'random' or 'sequential'"
        prepared = "isomer sets are made of prepared rows; leave out skip_prepare_dataset"
        by_length = self.train_sampling_strategy in ("group_by_length", "batch_rebalance")
        for name, is_set, reason in (
            ("packing", self.packing, joins),
            ("eval_packing", self.eval_packing, joins),
            ("padding_free", self.padding_free, joins),
            ("loss_type", self.loss_type != "nll", compares),
            ("label_smoothing_factor", self.label_smoothing_factor != 0, compares),
            ("use_liger_kernel", self.use_liger_kernel, replaces),
            ("torch_compile", self.torch_compile, passes),
            ("auto_find_batch_size", self.auto_find_batch_size, sizes),
            ("train_sampling_strategy", by_length, lengths),
            ("dataset_kwargs", (self.dataset_kwargs or {}).get("skip_prepare_dataset"), prepared),
        ):
            if is_set:
                found = getattr(self, name)
                raise ValueError(f"{name}={found!r} does not work with IGA: {reason}")
        # The gradient that makes a retraction is of use to one plain SGD step alone.
        plain = (("max_grad_norm", 0.0), ("fp16", False), ("world_size", 1))
        for name, needed in plain if self.iga_update == "retraction" else ():
            if (found := getattr(self, name)) not in (needed, None):
                raise ValueError(
                    "iga_update='retraction' works on one rank, in float32 or bfloat16, without "
                    f"clipping; expected {name}={needed}, found {found}; or set iga_update='chain'"
                )

    def iga(self) -> IGA:
        """Mask and projection that these arguments describe."""
        try:
            return IGA(**{name: getattr(self, ours) for name, ours in IGA_FIELDS.items()})
        except ValueError as error:  # of IGA's fields: here they have other names
            names = r"^\w+|\bspace(?= ')"
            text = re.sub(names, lambda word: IGA_FIELDS.get(word[0], word[0]), str(error))
            raise ValueError(text) from None

    def baseline(self, domains: int = 1) -> Baseline | None:
        """The objective or aggregator of K domains that `iga_method` names; None for "iga" and
        "erm"."""
        options: Any = self.iga_method_options
        is_iga = self.iga_method == "iga"
        return None if is_iga else make_baseline(self.iga_method, options, domains, self.seed)

    @property
    def needs_engine(self) -> bool:
        """Whether gradients are taken apart by domain: not by objectives, plain fine-tuning, or a
        setting that changes nothing (weight or factor space with tau 0 and no projection)."""
        if self.iga_method != "iga":
            return isinstance(self.baseline(), Aggregator)
        return not self.iga().is_neutral

    def tau_at(self, step: int) -> float:
        """Temperature of an optimizer step, counted from 0: tau, or tau * min(1, step / warm-up
        steps). `Choice`: the paper names no schedule."""
        is_constant = self.tau_schedule == "constant"
        return self.tau if is_constant else self.tau * min(1.0, step / self.tau_warmup_steps)
