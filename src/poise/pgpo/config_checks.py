"""Checks of `PGPOConfig`'s arguments; each raises a ValueError that says what to do."""

from __future__ import annotations

import math
import warnings
from dataclasses import fields
from typing import Any

from ..loss.token_weights import TOKEN_WEIGHTS
from .signal import ESTIMATORS
from .teacher_refresh import REFRESHES

MULTIPLIERS = ("distance", "information", "none")
ESTIMATED = ("exact", "sampled")
TEACHERS = ("base", "ema", "live")
# What routing needs of other arguments.
ROUTED = {"tiled_loss": True, "distillation_weight": 1.0, "pass_rate_weight": False}


# What other multipliers than "distance" do not read.
DISTANCE_ARGUMENTS = (
    "target_distance",
    "distance_estimator",
    "distance_tokens",
    "distance_signal_share",
    "correct_steps",
)


def warn_unread(args: Any) -> None:
    """Warns of arguments that others leave without effect."""
    defaults = {option.name: option.default for option in fields(args)}
    if args.multiplier != "distance":
        for name in DISTANCE_ARGUMENTS:
            if (found := getattr(args, name)) != defaults[name]:
                warnings.warn(
                    f"{name}={found!r} has no effect with multiplier={args.multiplier!r}; set "
                    f"multiplier='distance', or leave {name} out",
                    stacklevel=4,
                )
    if args.multiplier == "information" and args.sensitivity == 0:
        warnings.warn(
            "multiplier='information' with sensitivity=0 is a multiplier of 1; set sensitivity "
            "(the paper's are 0.5, 1.0 and 1.5), or multiplier='none'",
            stacklevel=4,
        )
    if args.multiplier == "distance" and args.routing is None and args.beta != 0:
        warnings.warn(
            f"beta={args.beta} turns off routing, the policy gradient of rollouts that succeed; "
            "TRL's SDPO does not compute that KL, so set beta=0, or routing=False to say so",
            stacklevel=4,
        )


def check_multiplier(args: Any) -> None:
    """What scales a step, and how a distance is measured."""
    for name, known in (("multiplier", MULTIPLIERS), ("distance_estimator", ESTIMATED)):
        if (found := getattr(args, name)) not in known:
            raise ValueError(f"{name} must be one of {known}, got {found!r}")
    if not 0 < args.distance_share <= 1:
        raise ValueError(f"distance_share must be in (0, 1], got {args.distance_share!r}")
    if not isinstance(args.distance_tokens, int) or args.distance_tokens < 1:
        raise ValueError(
            f"distance_tokens must be a whole number of at least 1, got {args.distance_tokens!r}"
        )
    for name in ("target_distance", "distance_signal_share"):
        value = getattr(args, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    args.viscosity()  # raises on values outside their range
    args.distance_control()


def check_signal(args: Any) -> None:
    """The information signal, numbers of times, tiles."""
    if args.signal_estimator not in ESTIMATORS:
        raise ValueError(
            f"signal_estimator must be one of {ESTIMATORS}, got {args.signal_estimator!r}"
        )
    for name in ("max_resamples", "max_nonfinite_steps"):
        if getattr(args, name) < 0:
            raise ValueError(f"{name} must be at least 0, got {getattr(args, name)!r}")
    if args.signal_estimator == "pointwise" and args.signal_reference != "none":
        raise ValueError(
            "signal_estimator='pointwise' has a mean below zero, so it has no ratio to a "
            "reference; set signal_reference='none', or another estimator"
        )
    if args.loss_tile_tokens is not None and args.loss_tile_tokens < 1:
        raise ValueError(f"loss_tile_tokens must be at least 1, got {args.loss_tile_tokens!r}")


def check_teacher(args: Any) -> None:
    """Which teacher, and when it is refreshed."""
    if args.teacher_model_kind not in TEACHERS:
        raise ValueError(
            f"teacher_model_kind must be one of {TEACHERS}, got {args.teacher_model_kind!r}"
        )
    if args.teacher_refresh not in REFRESHES:
        raise ValueError(
            f"teacher_refresh must be one of {REFRESHES}, got {args.teacher_refresh!r}"
        )
    if not 0 < args.teacher_refresh_at < 1:
        raise ValueError(f"teacher_refresh_at must be in (0, 1), got {args.teacher_refresh_at!r}")
    if args.teacher_refresh_window < 2:
        raise ValueError(
            f"teacher_refresh_window must be at least 2, got {args.teacher_refresh_window!r}"
        )
    is_ours = args.teacher_model_kind == "base" and args.teacher_from_student
    if args.teacher_refresh != "never" and not is_ours:
        raise ValueError(
            f"teacher_refresh={args.teacher_refresh!r} refreshes a teacher that stands still, "
            "expected teacher_model_kind='base' and teacher_from_student=True, found "
            f"teacher_model_kind={args.teacher_model_kind!r} and teacher_from_student="
            f"{args.teacher_from_student}; set them so, or teacher_refresh='never'"
        )


def check_loss(args: Any) -> None:
    """Weights of tokens, the moved target, the policy term."""
    if args.token_weight not in TOKEN_WEIGHTS:
        raise ValueError(f"token_weight must be one of {TOKEN_WEIGHTS}, got {args.token_weight!r}")
    if not (math.isfinite(args.token_weight_beta) and args.token_weight_beta > 0):
        raise ValueError(f"token_weight_beta must be positive, got {args.token_weight_beta!r}")
    if not 0 <= args.target_mix < 1:
        raise ValueError(f"target_mix must be in [0, 1), got {args.target_mix!r}")
    if not (math.isfinite(args.target_mix_beta) and args.target_mix_beta > 0):
        raise ValueError(f"target_mix_beta must be positive, got {args.target_mix_beta!r}")
    for name, off in (("token_weight", "none"), ("target_mix", 0.0)):
        if getattr(args, name) != off and not (args.tiled_loss and args.distillation_weight):
            raise ValueError(
                f"{name} shapes the tiled distillation loss, expected tiled_loss=True and "
                f"distillation_weight above 0, found tiled_loss={args.tiled_loss} and "
                f"distillation_weight={args.distillation_weight}; set them so, or leave "
                f"{name} out"
            )
    _check_policy_term(args)


def _check_policy_term(args: Any) -> None:
    if args.routing not in (None, True, False):
        raise ValueError(f"routing must be True, False or None, got {args.routing!r}")
    if args.has_policy_term and args.beta != 0:
        raise ValueError(
            f"beta={args.beta} asks for a KL to a reference model, which TRL's SDPO does not "
            "compute and the tiled loss has no logits for; set beta=0"
        )
    if not args.routing:
        return
    for name, needed in ROUTED.items():
        if (found := getattr(args, name)) != needed:
            raise ValueError(
                f"routing=True gives each sample one term of the tiled loss by its success, "
                f"expected {name}={needed}, found {found}"
            )
    if args.num_generations == 1:
        raise ValueError(
            "routing=True compares the rollouts of a group, expected num_generations of 2 or "
            "more, found 1"
        )


def check_combinations(args: Any) -> None:
    """Arguments that exclude each other."""
    args.check_optimizer(args.optim)
    if args.scales_steps and args.optim.startswith("schedule_free"):
        raise ValueError(
            f"optim={args.optim.value!r} evaluates and saves other weights than it trains, for "
            "which a multiplier of its step does not hold; choose another, such as "
            "'adamw_torch', or multiplier='none'"
        )
    if args.distillation_mode == "topk_logits" and args.distillation_topk is None:
        raise ValueError("distillation_mode='topk_logits' needs distillation_topk, e.g. 100")
    if args.use_teacher_server and (args.tiled_loss or args.scales_steps):
        raise ValueError(
            "use_teacher_server=True returns no teacher distribution, so there is neither a "
            "tiled loss nor an information signal; set tiled_loss=False and "
            "multiplier='none', or use_teacher_server=False"
        )
    if args.distillation_weight == 0 and args.scales_steps:
        raise ValueError(
            "distillation_weight=0 distils nothing, so there is no information signal and no "
            "token to measure a step on; set multiplier='none'"
        )
    shows_siblings = args.use_successful_as_teacher and (
        args.num_generations > 1 or not args.dont_reprompt_on_self_success
    )
    shows = shows_siblings or args.include_environment_feedback
    if args.distillation_weight > 0 and not shows:
        raise ValueError(
            "the teacher is never shown anything, so nothing is distilled, expected siblings "
            "(num_generations of 2 or more, use_successful_as_teacher=True) or "
            "include_environment_feedback=True, found "
            f"num_generations={args.num_generations} and use_successful_as_teacher="
            f"{args.use_successful_as_teacher}"
        )
    if args.num_generations == 1 and args.distillation_weight < 1:
        raise ValueError(
            f"distillation_weight={args.distillation_weight} compares the rollouts of a group, "
            "expected num_generations of 2 or more, found 1"
        )
    own_cache = args.cache_implementation or (args.generation_kwargs or {}).get(
        "cache_implementation"
    )
    if args.share_prompts and own_cache:
        raise ValueError(
            "share_prompts=True fills transformers' default cache, expected no "
            f"cache_implementation, found {own_cache!r}; leave it out, or set "
            "share_prompts=False"
        )
    if args.save_only_model and args.exact_resume:
        raise ValueError(
            "save_only_model=True leaves out the optimizer, so a run cannot be resumed; set "
            "exact_resume=False as well"
        )
    if args.use_vllm and args.max_resamples:
        raise ValueError(
            f"max_resamples={args.max_resamples} works with transformers' generation only; "
            "set it to 0 or use_vllm=False"
        )
    if args.pass_rate_weight and not (args.tiled_loss and args.distillation_weight == 1.0):
        raise ValueError(
            "pass_rate_weight=True weighs the samples of the tiled distillation loss, expected "
            "tiled_loss=True and distillation_weight=1, found "
            f"tiled_loss={args.tiled_loss} and distillation_weight={args.distillation_weight}; "
            "set them so, or pass_rate_weight=False"
        )
    if args.tiled_loss and args.torch_compile:
        raise ValueError(
            "torch_compile=True compiles the model's own forward, but the tiled loss runs its "
            "backbone and its head one by one; set torch_compile=False, or tiled_loss=False"
        )
