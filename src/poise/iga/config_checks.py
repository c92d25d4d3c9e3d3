"""Checks of `IGAConfig`'s arguments; each raises a ValueError that says what to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..optimizers import refuse_steps_in_backward
from .invariant import PROJECTIONS, SPACES, TARGETS, UPDATES
from .mask import SCALES

TAU_SCHEDULES = ("constant", "linear")
DOMAIN_WEIGHTS = ("equal", "tokens")
_OF_MASKS = (
    "tau",
    "tau_schedule",
    "tau_warmup_steps",
    "mask_scale",
    "mask_eps",
    "projection",
    "projection_rank",
    "projection_oversampling",
    "update",
)
_OF_IGA = ("space", *_OF_MASKS, "applied_to", "use_engine")


GRADIENTS = "the gradients that are taken apart by domain"
_NUMBER = ("a finite number", lambda x: _is_number(x) and math.isfinite(x))
_WHOLE = ("a whole number", lambda x: _is_number(x) and isinstance(x, int))
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "method": ("a name", lambda x: isinstance(x, str)),
    "tau": _NUMBER,
    "mask_eps": _NUMBER,
    "tau_warmup_steps": _WHOLE,
    "projection_oversampling": _WHOLE,
    "projection_rank": ("a whole number, or none", lambda x: x is None or _WHOLE[1](x)),
    "domains": (
        "a list of names, or none",
        lambda x: x is None or (isinstance(x, list | tuple) and all(isinstance(n, str) for n in x)),
    ),
    "use_engine": ("true, false, or none", lambda x: x is None or isinstance(x, bool)),
    "exact_resume": ("true or false", lambda x: isinstance(x, bool)),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_types(args: Any) -> None:
    """Types of IGA's own arguments, before anything computes with them."""
    for name, (expected, is_right) in _TYPES.items():
        if not is_right(value := getattr(args, name)):
            raise ValueError(
                f"{name}: expected {expected}, found {value!r} ({type(value).__name__}); change it,"
                " or leave it out for its default"
            )


def check_method(args: Any) -> None:
    """The method's name and options, and that no option of another is set."""
    options = args.method_options
    if options is not None and not isinstance(options, dict):
        raise ValueError(
            "method_options: expected a mapping from names to values, or one in JSON, found "
            f"{options!r}"
        )
    if args.method == "iga":
        if options:
            raise ValueError(
                "method_options: expected none for method 'iga', whose settings are arguments of "
                f"their own (tau, mask_scale, ...), found {options!r}"
            )
        return
    args.baseline()  # raises on unknown names and options, and values outside their range
    for name in _OF_IGA:
        if (value := getattr(args, name)) != type(args).__dataclass_fields__[name].default:
            raise ValueError(
                f"{name}={value!r} belongs to method 'iga', found method {args.method!r}; leave it "
                "out (options of other methods go into method_options)"
            )


def check_values(args: Any) -> None:
    """Values of IGA's own arguments, as far as the method does not check them itself."""
    known = {
        "space": SPACES,
        "tau_schedule": TAU_SCHEDULES,
        "mask_scale": SCALES,
        "projection": PROJECTIONS,
        "update": UPDATES,
        "applied_to": TARGETS,
        "domain_weights": DOMAIN_WEIGHTS,
    }
    for name, values in known.items():
        if getattr(args, name) not in values:
            raise ValueError(
                f"{name} must be one of {', '.join(values)}, got {getattr(args, name)!r}"
            )
    if args.space == "direction":
        for name in _OF_MASKS:
            if (found := getattr(args, name)) != type(args).__dataclass_fields__[name].default:
                raise ValueError(
                    f"{name}={found!r} shapes a mask or its projection, expected none of these "
                    "with space='direction', which has neither; leave it out, or choose another "
                    "space"
                )
    if args.projection_rank is not None and args.projection_rank < 1:
        raise ValueError(f"projection_rank must be at least 1, got {args.projection_rank!r}")
    if args.projection_oversampling < 0:
        raise ValueError(
            f"projection_oversampling must be at least 0, got {args.projection_oversampling!r}"
        )
    if args.tau_schedule == "linear" and args.tau_warmup_steps < 1:
        raise ValueError(
            f"tau_warmup_steps must be at least 1 with tau_schedule='linear', got "
            f"{args.tau_warmup_steps!r}"
        )
    if args.domains is not None and not 0 < len(args.domains) == len(set(args.domains)):
        raise ValueError(
            f"domains must be different names, at least one, or None; got {args.domains!r}"
        )


def check_host(args: Any) -> None:
    """Refuses what the host can do and a batch of isomer sets cannot."""
    if args.needs_engine:
        refuse_steps_in_backward(args.optim, GRADIENTS)
    refused = {
        "packing": args.packing or args.eval_packing,
        "padding_free": args.padding_free,
        "loss_type": args.loss_type != "nll",
        "label_smoothing_factor": args.label_smoothing_factor != 0,
        "use_liger_kernel": args.use_liger_kernel,
        "torch_compile": args.torch_compile,
        "auto_find_batch_size": args.auto_find_batch_size,
        "train_sampling_strategy": args.train_sampling_strategy
        in ("group_by_length", "batch_rebalance"),
        "dataset_kwargs": (args.dataset_kwargs or {}).get("skip_prepare_dataset"),
    }
    for name, is_set in refused.items():
        if is_set:
            found = getattr(args, name)
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
