"""Arguments of `PGPOTrainer`: TRL's for SDPO, and Poise's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..loss.moved_target import MovedTarget
from ..machine import settle_precision
from ..optimizers import refuse_steps_in_backward
from ..trl.contract import SDPOConfig
from .config_checks import (
    ROUTED,
    check_combinations,
    check_loss,
    check_multiplier,
    check_signal,
    check_teacher,
    warn_unread,
)
from .distance import DistanceControl
from .teacher_refresh import RefreshGate, RefreshOnce
from .viscosity import Viscosity

PAPER: dict[str, Any] = {
    "multiplier": "information",
    "sensitivity": 1.0,
    "rho_min": 1.0,
    "signal_estimator": "entropy",
    "signal_reference": "none",
    "teacher_model_kind": "ema",
}


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class PGPOConfig(SDPOConfig):  # type: ignore[misc]
    """Configuration of [`PGPOTrainer`]: everything of TRL's `SDPOConfig`, and the arguments below.

    Steps: `multiplier`, and with "distance" (see [`poise.pgpo.distance.DistanceControl`])
    `target_distance`, `distance_estimator`, `distance_share`, `distance_tokens`,
    `distance_signal_share`, `correct_steps`. The signal's factor, of the distance or the step (see
    [`poise.pgpo.viscosity.Viscosity`]): `sensitivity`, `rho_max`, `rho_min`, `signal_estimator`,
    `signal_reference`, `signal_reference_steps`, `signal_reference_decay`,
    `signal_prior_reference`, `scale_weight_decay`.
    Choice: the defaults, a set distance towards the base teacher and a policy gradient for what
    succeeds, are what won in `experiments/distance` and `experiments/distance_routing`.
    `PGPOConfig.paper(...)` is the paper's form.

    Warm-up: `warmup_steps` is TRL's. Choice: where the multiplier brakes against the first steps, a
    tenth of the steps by default, rounded down; elsewhere none, as TRL's.

    Loss: `tiled_loss`, `loss_tile_tokens`, `pass_rate_weight` (SC-SDPO; see
    [`poise.pgpo.pass_rate.pass_rate_weights`]), `token_weight`, `token_weight_beta` (see
    [`poise.loss.token_weights.token_weights`]), `target_mix`, `target_mix_beta` (see
    [`poise.loss.moved_target.MovedTarget`]), `routing` (see
    [`poise.loss.policy_term.PolicyTerm`]). TRL's `distillation_weight` between 0 and 1 goes with
    the tiled loss too.

    Teacher: `teacher_model_kind` is TRL's, with another default; `teacher_refresh`,
    `teacher_refresh_at`, `teacher_refresh_window` (see [`poise.pgpo.teacher_refresh`]).

    Mends of the host, each on its own switch: `exact_resume`, `teacher_from_student`,
    `random_demonstration`, `max_resamples`, `normalize_by_distilled`, `skip_nonfinite_steps`,
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
        check_multiplier(self)
        if self.warmup_steps is None:
            self.warmup_steps = 0.1 if self.brakes_from_first_steps else 0
        super().__post_init__()
        check_signal(self)
        check_teacher(self)
        warn_unread(self)
        self._settle_routing()
        check_loss(self)
        check_combinations(self)

    def _settle_routing(self) -> None:
        if self.routing is None:
            self.routing = (
                self.multiplier == "distance"
                and all(getattr(self, name) == needed for name, needed in ROUTED.items())
                and self.num_generations > 1
                and self.beta == 0
            )

    @property
    def has_policy_term(self) -> bool:
        """Whether the tiled loss has a policy-gradient term beside the distillation."""
        return bool(self.routing) or (self.tiled_loss and 0 < self.distillation_weight < 1)

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
        if self.multiplier != "distance":
            return None
        return DistanceControl(
            target=self.target_distance,
            signal_share=self.distance_signal_share,
            afterwards=self.correct_steps,
        )

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
