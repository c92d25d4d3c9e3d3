"""Arguments of `PGPOTrainer`: TRL's for SDPO, and Poise's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from ..loss.terms import TOKEN_WEIGHTS, MovedTarget
from ..optimizers import refuse_steps_in_backward
from ..precision import settle_precision
from ..trl.contract import SDPOConfig
from .distance import DistanceControl
from .refresh import REFRESHES, RefreshGate, RefreshOnce
from .signal import ESTIMATORS
from .viscosity import Viscosity

PAPER: dict[str, Any] = {
    "multiplier": "information",
    "sensitivity": 1.0,
    "rho_min": 1.0,
    "signal_estimator": "entropy",
    "signal_reference": "none",
    "teacher_model_kind": "ema",
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "multiplier": ("distance", "information", "none"),
    "distance_estimator": ("exact", "sampled"),
    "signal_estimator": ESTIMATORS,
    "token_weight": TOKEN_WEIGHTS,
    "teacher_model_kind": ("base", "ema", "live"),
    "teacher_refresh": REFRESHES,
}


def _is_positive(value: float) -> bool:
    return 0 < value < math.inf


# Of what `Viscosity` and `DistanceControl` do not check themselves.
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "distance_share": ("in (0, 1]", lambda v: 0 < v <= 1),
    "distance_tokens": ("a whole number of at least 1", lambda v: isinstance(v, int) and v >= 1),
    "loss_tile_tokens": ("at least 1", lambda v: v is None or v >= 1),
    "routing": ("True, False or None", lambda v: v in (None, True, False)),
    "token_weight_beta": ("positive", _is_positive),
    "target_mix": ("in [0, 1)", lambda v: 0 <= v < 1),
    "target_mix_beta": ("positive", _is_positive),
    "teacher_refresh_at": ("in (0, 1)", lambda v: 0 < v < 1),
    "teacher_refresh_window": ("at least 2", lambda v: v >= 2),
    "max_resamples": ("at least 0", lambda v: v >= 0),
    "max_nonfinite_steps": ("at least 0", lambda v: v >= 0),
}
# What other multipliers than "distance" do not read.
_OF_DISTANCE = (
    "target_distance",
    "distance_estimator",
    "distance_tokens",
    "distance_signal_share",
    "correct_steps",
)
# What routing needs of other arguments.
_ROUTED = {"tiled_loss": True, "distillation_weight": 1.0, "pass_rate_weight": False}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class PGPOConfig(SDPOConfig):  # type: ignore[misc]
    """Configuration of [`PGPOTrainer`]: everything of TRL's `SDPOConfig`, and the arguments below.

    Steps: `multiplier` to `correct_steps` (see [`poise.pgpo.distance.DistanceControl`]); the
    signal's factor, of the distance or the step: `sensitivity` to `scale_weight_decay` (see
    [`poise.pgpo.viscosity.Viscosity`]).
    Choice: the defaults, a set distance towards the base teacher and a policy gradient for what
    succeeds, are what won in `experiments/distance` and `experiments/distance_routing`.
    `PGPOConfig.paper(...)` is the paper's form.

    Warm-up: `warmup_steps` is TRL's. Choice: where the multiplier brakes against the first steps, a
    tenth of the steps by default, rounded down; elsewhere none, as TRL's.

    Loss: `tiled_loss` to `target_mix_beta` (see
    [`poise.pgpo.reward_functions.pass_rate_weights`], [`poise.loss.terms.token_weights`],
    [`poise.loss.terms.MovedTarget`] and, for `routing`,
    [`poise.loss.terms.PolicyTerm`]). TRL's `distillation_weight` between 0 and 1 goes with
    the tiled loss too.

    Teacher: `teacher_model_kind` is TRL's, with another default; `teacher_refresh`,
    `teacher_refresh_at`, `teacher_refresh_window` (see [`poise.pgpo.teacher`]).

    Fixes of TRL, each on its own switch: `exact_resume`, `teacher_from_student`,
    `random_demonstration`, `vllm_importance_sampling_correction`, `max_resamples`,
    `normalize_by_distilled`, `skip_nonfinite_steps`,
    `max_nonfinite_steps`, `collapse_warning`, `check_rewards`.

    Raises:
        ValueError: an argument outside its range, or two that exclude each other.
    """

    multiplier: str = _option(
        "distance",
        "What scales a step: 'distance' (it moves the policy by target_distance), 'information' "
        "(the paper's: a function of the information signal alone), or 'none': SDPO's steps, to "
        "the teacher of teacher_model_kind.",
    )
    target_distance: float = _option(
        0.006,
        "With multiplier='distance': how far a step moves the policy, KL(old || new) in nats a "
        "token. The learning rate then matters for the first steps alone.",
    )
    distance_estimator: str = _option(
        "exact",
        "How that is measured: 'exact' (over the vocabulary) or 'sampled' (on the sampled tokens).",
    )
    distance_share: float = _option(
        0.125, "Share of a step's sequences on which it is measured, in (0, 1]."
    )
    distance_tokens: int = _option(512, "Tokens at most on which it is measured, on each rank.")
    distance_signal_share: float | None = _option(
        None,
        "With it a step moves the policy by at most this share of the information signal; with "
        "signal_estimator='kl' that is what student and teacher still differ by.",
    )
    correct_steps: bool = _option(
        False,
        "Correct each step by its own distance after it was taken, not the next one alone. Costs "
        "a copy of the trained weights and up to three measurements.",
    )
    sensitivity: float = _option(
        0.0,
        "Sensitivity alpha to the information signal, of the distance or the step; the paper's are "
        "0.5, 1.0 and 1.5. 0 does not look at it.",
    )
    rho_max: float = _option(2.0, "Cap of the signal's factor, at least 1.")
    rho_min: float = _option(
        0.002,
        "Lower bound of the signal's factor, in (0, 1]. 1 is the paper's; below 1 it may brake.",
    )
    signal_estimator: str = _option(
        "kl",
        "Information signal: 'entropy' (the paper's: student minus teacher entropy), 'kl' (mean "
        "KL from student to teacher) or 'pointwise' (log-ratio on the sampled tokens).",
    )
    signal_reference: str = _option(
        "initial",
        "What the signal I is measured against: 'initial' (mean of the first steps) or 'running' "
        "(a maximum that forgets), for a multiplier exp(alpha * (I / I_ref - 1)); or 'none' (the "
        "paper's), for exp(alpha * I).",
    )
    signal_reference_steps: int = _option(
        10, "Optimizer steps that the 'initial' reference averages over."
    )
    signal_reference_decay: float = _option(
        0.01, "How fast the 'running' reference forgets, in [0, 1]."
    )
    signal_prior_reference: float | None = _option(
        None, "A reference in nats known beforehand, so that the first steps are guarded too."
    )
    warmup_steps: float | None = _option(
        None,
        "Steps over which the learning rate rises; below 1 a share of all steps. By default 0.1 "
        "if the multiplier brakes against the first steps, else 0. A share is rounded down to "
        "whole steps with that brake, else up, as TRL's. The schedule 'constant' ignores it.",
    )
    scale_weight_decay: bool = _option(
        False, "Whether decoupled weight decay is multiplied with the step."
    )
    tiled_loss: bool = _option(
        True,
        "Compute the distillation loss tile by tile from hidden states, never holding a tensor of "
        "tokens x vocabulary. False uses TRL's own loss.",
    )
    loss_tile_tokens: int | None = _option(
        None, "Tokens per tile of the tiled loss. None chooses by the size of the vocabulary."
    )
    pass_rate_weight: bool = _option(
        False,
        "Weigh each question's distillation loss by sqrt(p (1 - p)), p its rollouts' share of "
        "successes (SC-SDPO). Questions that always or never succeed are not distilled.",
    )
    routing: bool | None = _option(
        None,
        "Send rollouts that succeed (success_reward_threshold) to a policy gradient by TRL's "
        "advantages (epsilon, epsilon_high, importance_sampling_level, scale_rewards), and those "
        "that fail and have a teacher context to distillation (SRPO). Both are a mean over a "
        "sample's tokens, then over the samples; loss_type is not read. By default on with "
        "multiplier='distance' where the other arguments allow it.",
    )
    token_weight: str = _option(
        "none",
        "Weigh distilled tokens, by weights of mean 1: 'teacher_entropy' (those of which the "
        "teacher is sure: exp(-beta H_T), SRPO), 'information' (those about which its hint tells "
        "it more: exp(beta (H_S - H_T))), or 'none'.",
    )
    token_weight_beta: float = _option(1.0, "beta of token_weight, in 1/nat.")
    target_mix: float = _option(
        0.0,
        "How far the target moves from the teacher to the student, in [0, 1): T^(1 - a) S^a, a up "
        "to this where they differ most (DemoPSD: 0.15). 0 distils towards the teacher.",
    )
    target_mix_beta: float = _option(
        50.0, "How fast a grows with their Jensen-Shannon divergence, in 1/nat."
    )
    exact_resume: bool = _option(
        True,
        "Save and restore the teacher, the rollout buffer, counters and the signal's "
        "reference with each checkpoint, so that a resumed run equals an uninterrupted one. "
        "Checkpoints carry a manifest; damaged ones are named and passed over.",
    )
    teacher_from_student: bool = _option(
        True,
        "Start the EMA or base teacher from the student's weights, in memory. False is TRL's: a "
        "LoRA EMA teacher starts from zero factors, a full one is loaded again from the model's "
        "path.",
    )
    teacher_model_kind: str = _option(
        "base",
        "Teacher: 'base' (the student as it was at the start, which stands still; see "
        "teacher_refresh), 'ema' (SDPO's release: an average of the student), or 'live'.",
    )
    teacher_refresh: str = _option(
        "never",
        "With teacher_model_kind='base': when the student becomes the teacher, which stands still "
        "otherwise. 'never', 'once' (at teacher_refresh_at), or 'gated' (whenever the reward has "
        "risen by more than its noise while entropies and lengths are as usual).",
    )
    teacher_refresh_at: float = _option(
        0.4, "With teacher_refresh='once': after which share of the run's steps, in (0, 1)."
    )
    teacher_refresh_window: int = _option(
        10,
        "With teacher_refresh='gated': over how many steps rewards are averaged, before and after. "
        "Two refreshes are at least twice as many steps apart.",
    )
    random_demonstration: bool = _option(
        True, "Show the teacher a random successful sibling. False is TRL's: always the first."
    )
    share_prompts: bool = _option(
        False,
        "Read the prompt of a group, and what all prompts begin with, once, for rollouts by "
        "transformers and by the teacher. Values are the same up to rounding.",
    )
    vllm_importance_sampling_correction: bool = _option(
        True,
        "With use_vllm: weigh tokens by the ratio of the policy's probability to vLLM's, which "
        "rounds otherwise (distillation_is_clip and epsilon bound it). False is TRL's SDPO: vLLM's "
        "rollouts count as the policy's own. A server has to be started with --logprobs-mode "
        "processed_logprobs.",
    )
    max_resamples: int = _option(
        0, "How often the prompts of a batch without any success are sampled again."
    )
    normalize_by_distilled: bool = _option(
        True,
        "Average the step over the samples that are distilled (with routing: or have a policy "
        "gradient). False is TRL's: samples without either count as zero and shrink the step.",
    )
    skip_nonfinite_steps: bool = _option(
        True, "Skip an optimizer step whose loss or gradient is not finite."
    )
    max_nonfinite_steps: int = _option(
        5, "Consecutive skipped steps after which training stops with an error."
    )
    collapse_warning: bool = _option(
        True, "Warn when entropy, reward or completion length leave their running band."
    )
    check_rewards: bool = _option(
        True,
        "Call each reward function once on empty completions before training, to check what it "
        "returns.",
    )

    @classmethod
    def paper(cls, *args: Any, **settings: Any) -> PGPOConfig:
        """The paper's multiplier and SDPO's teacher; other arguments as given.

        Source: PGPO (arXiv 2606.03620), eq. 8 and 9, and the released SDPO.
        """
        return cls(*args, **(PAPER | settings))

    def __post_init__(self) -> None:
        settle_precision(self)
        self._check_ranges()
        if self.warmup_steps is None:
            self.warmup_steps = 0.1 if self.brakes_from_first_steps else 0
        super().__post_init__()
        _warn_of_unread(self)
        if self.routing is None:
            self.routing = (
                self.multiplier == "distance"
                and all(getattr(self, name) == needed for name, needed in _ROUTED.items())
                and self.num_generations > 1
                and self.beta == 0
            )
        self.check_optimizer(self.optim)
        _check_loss(self)
        _check_combinations(self)

    def _check_ranges(self) -> None:
        for name, known in _CHOICES.items():
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {known}, got {found!r}")
        for name, (expected, is_inside) in _RANGES.items():
            if not is_inside(found := getattr(self, name)):
                raise ValueError(f"{name} must be {expected}, got {found!r}")
        self.viscosity()
        self._distance_law()

    @property
    def has_policy_term(self) -> bool:
        """Whether the tiled loss has a policy-gradient term beside the distillation."""
        return bool(self.routing) or (self.tiled_loss and 0 < self.distillation_weight < 1)

    @property
    def averages_by_distilled(self) -> bool:
        """Whether a step's mean is one over the samples with a loss."""
        # TRL's blend with the policy loss is a mean over all samples.
        return self.normalize_by_distilled and self.distillation_weight == 1.0

    def moved_target(self) -> MovedTarget | None:
        """The target in the teacher's place that these arguments describe, if they do."""
        return MovedTarget(self.target_mix, self.target_mix_beta) if self.target_mix else None

    def refresh_rule(self) -> RefreshOnce | RefreshGate | None:
        """When the student becomes the teacher, if these arguments have it do so."""
        if self.teacher_refresh == "once":
            return RefreshOnce(self.teacher_refresh_at)
        if self.teacher_refresh == "gated":
            return RefreshGate(self.teacher_refresh_window)
        return None

    def distance_control(self) -> DistanceControl | None:
        """The law from distance to multiplier that these arguments describe, if they do."""
        return self._distance_law() if self.multiplier == "distance" else None

    def _distance_law(self) -> DistanceControl:
        names = {"target": "target_distance", "signal_share": "distance_signal_share"}
        try:
            return DistanceControl(
                target=self.target_distance,
                signal_share=self.distance_signal_share,
                afterwards=self.correct_steps,
            )
        except ValueError as error:
            name, _, rest = str(error).partition(" ")
            raise ValueError(f"{names.get(name, name)} {rest}") from None

    @property
    def scales_steps(self) -> bool:
        """Whether a step may have another multiplier than 1."""
        return self.multiplier == "distance" or self.viscosity().sensitivity != 0

    def viscosity(self) -> Viscosity:
        """The law from signal to factor that these arguments describe."""
        return Viscosity(
            sensitivity=0.0 if self.multiplier == "none" else self.sensitivity,
            rho_max=self.rho_max,
            rho_min=self.rho_min,
            reference=self.signal_reference,  # type: ignore[arg-type]
            reference_steps=self.signal_reference_steps,
            reference_decay=self.signal_reference_decay,
            prior_reference=self.signal_prior_reference,
        )

    @property
    def brakes_from_first_steps(self) -> bool:
        """Whether the first steps are what later ones are braked against."""
        has_reference = self.signal_reference != "none" and self.signal_prior_reference is None
        return self.viscosity().sensitivity != 0 and self.rho_min < 1 and has_reference

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """TRL's, but rounded down where the multiplier brakes against the first steps."""
        share = self.warmup_steps or 0
        if self.brakes_from_first_steps and share < 1:
            return int(share * num_training_steps)
        steps: int = super().get_warmup_steps(num_training_steps)
        return steps

    def check_optimizer(self, optimizer: Any) -> None:
        """Refuses an optimizer, or the name of one, past which these arguments go.

        Raises:
            ValueError: it steps inside the backward.
        """
        if self.scales_steps or self.normalize_by_distilled or self.skip_nonfinite_steps:
            refuse_steps_in_backward(
                optimizer,
                "PGPO's multiplier, mean over the distilled and skipping of steps (multiplier, "
                "normalize_by_distilled, skip_nonfinite_steps)",
            )


def _warn_of_unread(args: Any) -> None:
    """Warns of arguments that others leave without effect."""
    defaults = {option.name: option.default for option in fields(args)}
    if args.multiplier != "distance":
        for name in _OF_DISTANCE:
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


def _check_loss(args: Any) -> None:
    """Weights of tokens, the moved target, the policy term."""
    for name, off in (("token_weight", "none"), ("target_mix", 0.0)):
        if getattr(args, name) != off and not (args.tiled_loss and args.distillation_weight):
            raise ValueError(
                f"{name} shapes the tiled distillation loss, expected tiled_loss=True and "
                f"distillation_weight above 0, found tiled_loss={args.tiled_loss} and "
                f"distillation_weight={args.distillation_weight}; set them so, or leave "
                f"{name} out"
            )
    if args.has_policy_term and args.beta != 0:
        raise ValueError(
            f"beta={args.beta} asks for a KL to a reference model, which TRL's SDPO does not "
            "compute and the tiled loss has no logits for; set beta=0"
        )
    for name, needed in _ROUTED.items():
        if args.routing and (found := getattr(args, name)) != needed:
            raise ValueError(
                f"routing=True gives each sample one term of the tiled loss by its success, "
                f"expected {name}={needed}, found {found}"
            )
    if args.routing and args.num_generations == 1:
        raise ValueError(
            "routing=True compares the rollouts of a group, expected num_generations of 2 or "
            "more, found 1"
        )


def _check_combinations(args: Any) -> None:
    """Arguments that exclude each other."""
    if args.signal_estimator == "pointwise" and args.signal_reference != "none":
        raise ValueError(
            "signal_estimator='pointwise' has a mean below zero, so it has no ratio to a "
            "reference; set signal_reference='none', or another estimator"
        )
    is_ours = args.teacher_model_kind == "base" and args.teacher_from_student
    if args.teacher_refresh != "never" and not is_ours:
        raise ValueError(
            f"teacher_refresh={args.teacher_refresh!r} refreshes a teacher that stands still, "
            "expected teacher_model_kind='base' and teacher_from_student=True, found "
            f"teacher_model_kind={args.teacher_model_kind!r} and teacher_from_student="
            f"{args.teacher_from_student}; set them so, or teacher_refresh='never'"
        )
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
