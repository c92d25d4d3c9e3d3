"""Arguments of `PGPOTrainer`: TRL's for SDPO, and Poise's."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import GenerationConfig

from ..loss.terms import TOKEN_WEIGHTS, MovedTarget
from ..optimizers import refuse_steps_in_backward
from ..precision import settle_precision
from ..trl.contract import SDPOConfig
from ..trl.preflight import check_json
from .distance import DistanceControl
from .ranges import AT_LEAST_0, POSITIVE, POSITIVE_OR_NONE, Expected, check_ranges, number, whole
from .refresh import REFRESHES, RefreshGate, RefreshOnce
from .signal import ESTIMATORS
from .viscosity import Viscosity

_CHOICES: dict[str, tuple[Any, ...]] = {
    "multiplier": ("distance", "information", "none"),
    "distance_estimator": ("exact", "sampled"),
    "signal_estimator": ESTIMATORS,
    "token_weight": TOKEN_WEIGHTS,
    "teacher_model_kind": ("base", "ema", "live"),
    "teacher_refresh": REFRESHES,
    "routing": (True, False, None),
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo"),  # TRL's, which looks at the first loss
}

# `Viscosity` checks its own.
_RANGES: dict[str, Expected] = {
    "target_distance": POSITIVE,
    "distance_signal_share": POSITIVE_OR_NONE,
    "distance_share": number("in (0, 1]", lambda v: 0 < v <= 1),
    "distance_tokens": whole(1),
    "loss_tile_tokens": number("at least 1", lambda v: v >= 1, or_none=True),
    "token_weight_beta": POSITIVE,
    "target_mix": number("in [0, 1)", lambda v: 0 <= v < 1),
    "target_mix_beta": POSITIVE,
    "teacher_refresh_at": number("in (0, 1)", lambda v: 0 < v < 1),
    "teacher_refresh_window": number("at least 2", lambda v: v >= 2),
    "max_resamples": AT_LEAST_0,
    "max_nonfinite_steps": AT_LEAST_0,
}

_PURE = {"tiled_loss": True, "distillation_weight": 1.0}
_TILED = {"tiled_loss": True, "distillation_weight": ("above 0", lambda v: v > 0)}
_GROUPS = {"num_generations": ("of 2 or more", lambda v: v >= 2)}
_ROUTED = {**_PURE, "pass_rate_weight": False, **_GROUPS, "beta": 0}
_STANDING = {"teacher_model_kind": "base", "teacher_from_student": True}
_TOP_K = {"distillation_topk": ("a number such as 100", lambda v: v is not None)}
_UNSCALED = {"multiplier": "none"}
_UNTAUGHT = {"tiled_loss": False, **_UNSCALED}
# An argument, at which values it needs others, why, and what those must be.
_NEEDS: tuple[tuple[str, Callable[[Any], Any], str, dict[str, Any]], ...] = (
    ("token_weight", lambda v: v != "none", "shapes the tiled distillation loss", _TILED),
    ("target_mix", bool, "shapes the tiled distillation loss", _TILED),
    ("pass_rate_weight", bool, "weighs the samples of the tiled distillation loss", _PURE),
    ("routing", bool, "gives each rollout of a group one term of the tiled loss", _ROUTED),
    ("distillation_weight", lambda v: v < 1, "compares the rollouts of a group", _GROUPS),
    ("distillation_weight", lambda v: v == 0, "leaves no signal and no distance", _UNSCALED),
    ("distillation_mode", lambda v: v == "topk_logits", "sums over likely tokens", _TOP_K),
    ("signal_estimator", lambda v: v == "pointwise", "has no ratio", {"signal_reference": "none"}),
    ("teacher_refresh", lambda v: v != "never", "refreshes a teacher that stands still", _STANDING),
    ("use_teacher_server", bool, "returns no teacher distribution", _UNTAUGHT),
    ("save_only_model", bool, "leaves the optimizer out", {"exact_resume": False}),
    ("max_resamples", bool, "samples with transformers' generation", {"use_vllm": False}),
    ("torch_compile", bool, "compiles the model as a whole", {"tiled_loss": False}),
)

_OF_DISTANCE = (
    *("target_distance", "distance_estimator", "distance_tokens"),
    *("distance_signal_share", "correct_steps"),
)
_OF_POLICY = ("loss_type", "epsilon", "importance_sampling_level")  # its loss, TRL's


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class PGPOConfig(SDPOConfig):  # type: ignore[misc]
    """Configuration of [`PGPOTrainer`]: everything of TRL's `SDPOConfig`, and the arguments below.

    More on them: [`poise.pgpo.distance.DistanceControl`], [`poise.pgpo.viscosity.Viscosity`],
    [`poise.pgpo.rollouts.pass_rate_weights`], [`poise.loss.terms`],
    [`poise.pgpo.refresh`].

    Choice: the defaults, a set distance towards the base teacher and a policy gradient for what
    succeeds, are what won in `experiments/distance` and `experiments/distance_routing`.
    `PGPOConfig.paper(...)` is the paper's form. Where the multiplier brakes against the first
    steps, a tenth of the steps is warm-up by default, rounded down; elsewhere none, as TRL's.

    Raises:
        ValueError: an argument outside its range, or two that exclude each other.
    """

    multiplier: str = _option(
        "distance",
        "What scales a step: 'distance' (it moves the policy by target_distance), 'information' "
        "(the paper's: a function of the information signal alone), or 'none' (SDPO's steps).",
    )
    target_distance: float = _option(
        0.006,
        "With multiplier='distance': how far a step moves the policy, KL(old || new) in nats a "
        "token. The learning rate then matters for the first steps alone.",
    )
    distance_estimator: str = _option(
        "exact", "How it is measured: 'exact' (over the vocabulary) or 'sampled' (on the tokens)."
    )
    distance_share: float = _option(
        0.125, "Share of a step's sequences on which it is measured, in (0, 1]."
    )
    distance_tokens: int = _option(512, "Tokens at most on which it is measured, on each rank.")
    distance_signal_share: float | None = _option(
        None,
        "A step moves the policy by at most this share of the information signal; with "
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
        "Lower bound of the signal's factor, in (0, 1]. 1 is the paper's; less may brake.",
    )
    signal_estimator: str = _option(
        "kl",
        "Information signal: 'entropy' (the paper's: student minus teacher entropy), 'kl' (mean "
        "KL from student to teacher) or 'pointwise' (log-ratio on the sampled tokens).",
    )
    signal_reference: str = _option(
        "initial",
        "What the signal I is measured against: 'initial' (mean of the first steps) or 'running' "
        "(a maximum that forgets), for exp(alpha * (I / I_ref - 1)); 'none' is the paper's, "
        "exp(alpha * I).",
    )
    signal_reference_steps: int = _option(10, "Steps that the 'initial' reference averages over.")
    signal_reference_decay: float = _option(
        0.01, "How fast the 'running' reference forgets, in [0, 1]."
    )
    signal_prior_reference: float | None = _option(
        None, "A reference in nats known beforehand, so that the first steps are guarded too."
    )
    warmup_steps: float | None = _option(
        None,
        "Steps over which the learning rate rises; below 1 a share of all steps. By default 0.1 "
        "(rounded down) if the multiplier brakes against the first steps, else 0.",
    )
    scale_weight_decay: bool = _option(False, "Multiply decoupled weight decay with the step.")
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
        "Send rollouts that reach success_reward_threshold to a policy gradient by TRL's "
        "advantages, and those that fail and have a teacher context to distillation (SRPO). By "
        "default on with multiplier='distance' where the other arguments allow it.",
    )
    token_weight: str = _option(
        "none",
        "Weigh distilled tokens, by weights of mean 1: 'teacher_entropy' (exp(-beta H_T), SRPO: "
        "the teacher is sure), 'information' (exp(beta (H_S - H_T)): its hint tells it more).",
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
        "Save with each checkpoint what TRL forgets (teacher, rollouts, counters, references), so "
        "that a resumed run equals an uninterrupted one; damaged checkpoints are passed over.",
    )
    teacher_from_student: bool = _option(
        True,
        "Start the EMA or base teacher from the student's weights, in memory. False is TRL's: a "
        "LoRA EMA teacher starts from zero factors, a full one is loaded from the model's path.",
    )
    teacher_model_kind: str = _option(
        "base",
        "Teacher: 'base' (the student as it was at the start, which stands still; see "
        "teacher_refresh), 'ema' (SDPO's release: an average of the student), or 'live'.",
    )
    teacher_refresh: str = _option(
        "never",
        "When the student becomes the base teacher: 'never', 'once' (at teacher_refresh_at), or "
        "'gated' (the reward has risen by more than its noise, entropies and lengths are usual).",
    )
    teacher_refresh_at: float = _option(
        0.4, "With teacher_refresh='once': after which share of the run's steps, in (0, 1)."
    )
    teacher_refresh_window: int = _option(
        10, "With teacher_refresh='gated': steps over which rewards are averaged, before and after."
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
        "rounds otherwise. False is TRL's SDPO: vLLM's rollouts count as the policy's own.",
    )
    max_resamples: int = _option(
        0, "How often the prompts of a batch without any success are sampled again."
    )
    normalize_by_distilled: bool = _option(
        True,
        "Average the step over the samples that have a loss. False is TRL's: the others count as "
        "zero and shrink the step.",
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
        True, "Call each reward function once before training, on empty completions."
    )

    @classmethod
    def paper(cls, *args: Any, **settings: Any) -> PGPOConfig:
        """The paper's multiplier and SDPO's teacher; other arguments as given.

        Source: PGPO (arXiv 2606.03620), eq. 8 and 9, and the released SDPO.
        """
        form: dict[str, Any] = {
            "multiplier": "information",
            "sensitivity": 0.0 if settings.get("multiplier") == "none" else 1.0,
            "rho_min": 1.0,
            "signal_estimator": "entropy",
            "signal_reference": "none",
            "teacher_model_kind": "ema",
        }
        return cls(*args, **(form | settings))

    def __post_init__(self) -> None:
        check_json(self)
        settle_precision(self)
        for name, known in _CHOICES.items():
            if (found := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {known}, got {found!r}")
        check_ranges(self, _RANGES)
        self.viscosity()
        if self.warmup_steps is None:
            self.warmup_steps = 0.1 if self.brakes_from_first_steps else 0
        super().__post_init__()
        for sentence in _without_effect(self):
            warnings.warn(sentence, stacklevel=3)
        self.routing = self._routes
        self.check_optimizer(self.optim)
        _refuse_conflicts(self)

    @property
    def _scales_steps(self) -> bool:
        return self.multiplier == "distance" or self.viscosity().sensitivity != 0

    @property
    def _routes(self) -> bool:
        """`routing`, or what it is by default."""
        by_default = self.multiplier == "distance" and not any(_unmet(self, _ROUTED))
        return by_default if self.routing is None else bool(self.routing)

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
        """The target in the teacher's place, if there is one."""
        return MovedTarget(self.target_mix, self.target_mix_beta) if self.target_mix else None

    def refresh_rule(self) -> RefreshOnce | RefreshGate | None:
        """When the student becomes the teacher, if ever."""
        if self.teacher_refresh == "once":
            return RefreshOnce(self.teacher_refresh_at)
        return RefreshGate(self.teacher_refresh_window) if self.teacher_refresh == "gated" else None

    def distance_control(self) -> DistanceControl | None:
        """The law from distance to multiplier, if the multiplier is that."""
        if self.multiplier != "distance":
            return None
        return DistanceControl(
            target=self.target_distance,
            signal_share=self.distance_signal_share,
            afterwards=self.correct_steps,
        )

    def viscosity(self) -> Viscosity:
        """The law from signal to factor."""
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
        return int(super().get_warmup_steps(num_training_steps))

    def check_optimizer(self, optimizer: Any) -> None:
        """Refuses an optimizer, or the name of one, past which these arguments go.

        Raises:
            ValueError: it steps inside the backward.
        """
        if self._scales_steps or self.normalize_by_distilled or self.skip_nonfinite_steps:
            refuse_steps_in_backward(
                optimizer,
                "PGPO's multiplier, mean over the distilled and skipping of steps (multiplier, "
                "normalize_by_distilled, skip_nonfinite_steps)",
            )


def _without_effect(args: Any) -> Iterator[str]:
    """Sentences on arguments that others leave without effect."""
    defaults = {option.name: option.default for option in fields(args)}
    idle: dict[str, tuple[str, str]] = {}  # argument -> with what, and the way out
    if args.multiplier != "distance":
        there = f"multiplier={args.multiplier!r}", "set multiplier='distance'"
        idle |= dict.fromkeys(_OF_DISTANCE, there)
    if args.distillation_weight == 1:
        there = "distillation_weight=1.0", "set distillation_weight below 1 and routing=False"
        if args._routes:
            idle["loss_type"] = "routing, whose mean is over samples", there[1]
        else:
            idle |= dict.fromkeys(_OF_POLICY, there)
    for name, (where, way_out) in idle.items():
        if (found := getattr(args, name)) != defaults[name]:
            yield f"{name}={found!r} has no effect with {where}; {way_out}, or leave {name} out"
    if args.multiplier == "none" and args.sensitivity != 0:
        yield (
            f"sensitivity={args.sensitivity!r} has no effect with multiplier='none'; set "
            "multiplier='information' or 'distance', or leave sensitivity out"
        )
    if args.multiplier == "information" and args.sensitivity == 0:
        yield (
            "multiplier='information' with sensitivity=0 is a multiplier of 1; set sensitivity "
            "(the paper's are 0.5, 1.0 and 1.5), or multiplier='none'"
        )
    if args.multiplier == "distance" and args.routing is None and args.beta != 0:
        yield (
            f"beta={args.beta} turns off routing, the policy gradient of rollouts that succeed; "
            "TRL's SDPO does not compute that KL: set beta=0, or routing=False"
        )


def _unmet(args: Any, needed: dict[str, Any]) -> Iterator[str]:
    """Of what other arguments must be, what they are not."""
    for name, expected in needed.items():
        found = getattr(args, name)
        if (name, expected) == ("multiplier", "none") and not args._scales_steps:
            continue  # a multiplier of 1 by another name
        words, fits = expected if isinstance(expected, tuple) else (None, None)
        if not (fits(found) if fits else found == expected):
            what = f"{name} {words}" if words else f"{name}={expected!r}"
            yield f"expected {what}, found {found!r}"


def _refuse_conflicts(args: Any) -> None:
    for name, is_on, why, needed in _NEEDS:
        value = getattr(args, name)
        if is_on(value) and (unmet := "; ".join(_unmet(args, needed))):
            raise ValueError(f"{name}={value!r} {why}: {unmet}; set it so, or change {name}")
    if args._scales_steps and args.optim.startswith("schedule_free"):
        raise ValueError(
            f"optim={args.optim.value!r} evaluates and saves other weights than it trains, for "
            "which a multiplier of its step does not hold; choose another, such as "
            "'adamw_torch', or multiplier='none'"
        )
    if args.has_policy_term and args.beta != 0:
        raise ValueError(
            f"beta={args.beta} asks for a KL to a reference model, which TRL's SDPO does not "
            "compute and the tiled loss has no logits for; set beta=0"
        )
    has_sibling = args.num_generations > 1 or not args.dont_reprompt_on_self_success
    siblings = args.use_successful_as_teacher and has_sibling
    if args.distillation_weight > 0 and not (siblings or args.include_environment_feedback):
        raise ValueError(
            "the teacher is never shown anything: expected siblings (num_generations of 2 or more, "
            "use_successful_as_teacher=True) or include_environment_feedback=True, found "
            f"num_generations={args.num_generations} and use_successful_as_teacher="
            f"{args.use_successful_as_teacher}"
        )
    kwargs = args.generation_kwargs or {}
    known = vars(GenerationConfig())
    if unknown := [name for name in kwargs if name not in known and not args.use_vllm]:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "leave it out"
        raise ValueError(
            "generation_kwargs: expected arguments of transformers' GenerationConfig, which passes "
            f"over others, found {unknown[0]!r}; {hint}"
        )
    cache = args.cache_implementation or kwargs.get("cache_implementation")
    if args.share_prompts and cache:
        raise ValueError(
            "share_prompts=True fills transformers' default cache, expected no "
            f"cache_implementation, found {cache!r}; leave it out, or set share_prompts=False"
        )
