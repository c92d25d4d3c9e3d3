"""PGPO on TRL's SDPO trainer: the optimizer step, read downwards.

Collect (`rollouts`), teach (`teacher`), loss and signal of each micro-batch (`micro_batch`); then
scale (`step_scale`), clip, step, log. Under DeepSpeed the engine clips and steps inside the
backward of the last micro-batch, so what is done between the two elsewhere comes before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers import TrainerCallback

from ..loss.divergence import Divergence
from ..loss.heads import (
    SplitModel,
    evaluating,
    padding_shifts,
    split_causal_lm,
    verify_padding,
    verify_split,
)
from ..loss.terms import PolicyTerm, sequence_old_logps, token_weights
from ..loss.tiled import (
    DistillationOutput,
    TiledStatistics,
    tiled_distillation_loss,
    tiled_entropy,
    tiled_token_logps,
    token_statistics,
)
from ..models import fold_output_head
from ..sharding import loss_inside, read_inside
from ..trl import checkpoints
from ..trl.contract import ForwardRedirection, SDPOTrainer
from ..trl.guards import CollapseMonitor, NonFiniteGuard, WarmupCheck
from ..trl.logs import MetricsLog
from ..trl.rounding import RoundingCheck, precision_before_trl
from .config import PGPOConfig
from .distance import StepTokens
from .engine_step_scale import EngineStepScale
from .micro_batch import in_all_rows, loss_terms, needed_part, sample_mean_weights
from .preflight import BEST, check_before_loading, check_chat_template, refuse_unsupported
from .rollouts import RolloutMixin
from .signal import information_sum, token_information
from .step_scale import StepScale
from .teacher import TeacherMixin
from .teacher_context import RolloutTeacherContextBuilder

logger = get_logger(__name__)


class PGPOTrainer(  # type: ignore[misc]
    RolloutMixin,
    TeacherMixin,
    checkpoints.CheckpointingMixin,
    SDPOTrainer,
):
    """Trainer for Physics-Guided Policy Optimization.

    TRL's `SDPOTrainer`, with steps of a set distance (`StepScale`), a base teacher, and a policy
    gradient for what succeeds (`routing`). With `multiplier="none"`, `teacher_model_kind="ema"` it
    is SDPO. Its other changes fix TRL's trainer, each on a switch of `PGPOConfig`, or where its
    results would be wrong (docs/pgpo.md); with all of them off it equals it bit for bit.

    Args:
        model: as TRL's: a path, a hub id, or a model.
        reward_funcs: as TRL's; a function may also return `(reward, text)` pairs, whose text is
            feedback on that completion for the teacher.
        args: the configuration.
        train_dataset: rows with `prompt` (text, or messages that end with the user's), optionally
            `privileged_context`, and columns for rewards.
        eval_dataset: as TRL's, and all that follow.

    Raises:
        ValueError: bad input, each with its own message, before the model is loaded where possible.
        TypeError: a reward function that returns something else than one entry per completion; a
            stream of prompts.

    Reference: PGPO (arXiv 2606.03620), SDPO (arXiv 2601.20802).
    """

    config_cls = PGPOConfig
    _figures = (BEST,)
    _tag_names = ["trl", "sdpo", "pgpo", "poise"]  # noqa: RUF012 (TRL's class attribute)
    _name = "PGPO"
    _paper = {"title": "Physics-Guided Policy Optimization", "id": "2606.03620"}  # noqa: RUF012
    _method = "pgpo"
    standstill_patience = 20  # steps in a row after which a brake that is not released is named

    step_scale: Any = None  # a StepScale, made with the optimizer
    _step_tokens: StepTokens | None = None
    _standing = 0  # steps in a row that the signal has cut to next to nothing
    _mean_factor = 1.0  # of the step, under DeepSpeed
    _verified_model = False
    _has_dropout: bool | None = None  # in training; None until its first forward

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: PGPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ) -> None:
        args = PGPOConfig("pgpo-output") if args is None else args
        model = check_before_loading(
            model, args, train_dataset, eval_dataset, reward_funcs, optimizers, peft_config
        )
        args.check_optimizer(optimizers[0])
        self.nonfinite_guard = NonFiniteGuard(args.max_nonfinite_steps)
        self.collapse_monitor = CollapseMonitor()
        self._forget_step()
        self._undo_casts = precision_before_trl(model, peft_config)
        super().__init__(
            model=model,
            reward_funcs=reward_funcs,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            reward_processing_classes=reward_processing_classes,
            callbacks=list(callbacks or []),
            optimizers=optimizers,
            peft_config=peft_config,
        )
        refuse_unsupported(self)
        if self._uses_tiled_loss():
            fold_output_head(self.model)
        row = next(iter(train_dataset))
        check_chat_template(row, self.processing_class)
        self.teacher_context_builder = RolloutTeacherContextBuilder(self)
        self._wrap_reward_functions()
        if args.check_rewards:
            self._check_reward_functions(row)
        for callback in (_StepEnd(self), WarmupCheck(), RoundingCheck(), MetricsLog()):
            self.add_callback(callback)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `CheckpointingMixin`'s.

        Raises:
            ValueError: under DeepSpeed, for the second time: transformers would make a new
                optimizer and a new schedule, and the engine would go on with the old ones.
        """
        if self.is_deepspeed_enabled and self.deepspeed is not None:
            raise ValueError(
                "this trainer's DeepSpeed engine is made already, and goes on with the optimizer "
                "and the schedule that it has; make another trainer (in a process of its own)"
            )
        return super().train(*args, **kwargs)

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if self.step_scale is None and not self.is_deepspeed_enabled:  # which makes another
            # A user may pass accelerate's wrapper.
            self._make_step_scale(StepScale, getattr(optimizer, "optimizer", optimizer))
        return optimizer

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers'; it is the first thing done with the optimizer that DeepSpeed has made."""
        scheduler = super().create_scheduler(*args, **kwargs)
        wrapper = self.is_deepspeed_enabled and self.accelerator.deepspeed_engine_wrapped
        if wrapper and self.step_scale is None:
            self._make_step_scale(EngineStepScale, wrapper.engine)
        return scheduler

    def _make_step_scale(self, kind: type[StepScale], steps: Any) -> None:
        args, distance = self.args, self.args.distance_control()
        if distance is not None:
            self._step_tokens = StepTokens(
                args.distance_share,
                exact=args.distance_estimator == "exact",
                limit=args.distance_tokens,
                temperature=self.temperature,
                of_every_batch=self.is_fsdp_enabled,
            )
        self.step_scale = kind(
            steps,
            args.viscosity(),
            distance=distance,
            policy=self._step_log_probs if distance else None,
            policy_again=partial(self._step_log_probs, again=True) if distance else None,
            scale_weight_decay=args.scale_weight_decay,
        )

    def _forget_step(self) -> None:
        self._step_sums: list[Tensor] = []
        self._step_losses: list[Tensor] = []
        self._watched: dict[str, float] = {}
        if self._step_tokens is not None:
            self._step_tokens.forget()
        if self.step_scale is not None:
            self.step_scale.discard()

    # Each micro-batch: loss and signal.

    def _uses_tiled_loss(self) -> bool:
        # Weight 0 is the policy loss alone: nothing is distilled.
        return self.args.tiled_loss and self.args.distillation_weight > 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Any,
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        if return_outputs or not self._uses_tiled_loss():
            self._warn_of_padding_once(model, inputs)
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        else:
            loss = self._tiled_loss(model, inputs)
            loss = loss / (self.current_gradient_accumulation_steps if self.model.training else 1.0)
        if self.model.training:
            self._step_losses.append(loss.detach().float())
            if self.is_deepspeed_enabled:
                self._before_backward(loss, is_first=len(self._step_losses) == 1)
        return loss

    def _tiled_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        samples = len(inputs["completion_ids"])
        batch = needed_part(inputs, self.args)
        mask = batch["distilled_mask"]
        teacher, teacher_hidden = self._teacher_hidden_states(batch)
        teacher_hidden = in_all_rows(teacher_hidden, batch)
        student = split_causal_lm(self.accelerator.unwrap_model(model))
        if not self._verified_model:
            ids = batch["completion_ids"][:1, :8]
            verify_split(student, ids, self.accelerator.autocast)
            verify_padding(student, ids, self.accelerator.autocast)
            self._verified_model = True
        work: Any = partial(self._distill, student, teacher, samples)
        if model is not student.model:
            # Inside the forward of the wrapper (DDP), which so sees every use of its parameters,
            # the head's included, and moves the inputs to the device of its module.
            work = partial(ForwardRedirection(), model, student.model, work)
        with self._teacher_head_gathered(teacher):
            loss, output, policy_loss, hidden = loss_inside(
                model, partial(work, batch, teacher_hidden)
            )
        mode = "train" if model.training else "eval"
        self._record_loss(mode, output.per_token_loss, mask, policy_loss)
        self._record_sampler(mode, output.student_logps, batch)
        if hidden is not None:
            batch["student_hidden"] = hidden
        statistics = output.view_as(mask)
        self.observe_statistics(statistics, batch, mask, samples, batch["loss_mask"])
        return loss

    def _distill(
        self,
        student: SplitModel,
        teacher: SplitModel,
        samples: int,
        batch: dict[str, Tensor],
        teacher_hidden: Tensor,
    ) -> tuple[Tensor, DistillationOutput, Tensor | None, Tensor | None]:
        """Loss, figures, the policy term's loss; (B, T, H) hidden states if without dropout."""
        args, mask, tokens = self.args, batch["distilled_mask"], batch["completion_ids"]
        with self.accelerator.autocast():
            ids = torch.cat([batch["prompt_ids"], tokens], dim=1)
            attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            looks = self._step_tokens is not None and self._has_dropout is None
            drawn = random_state(ids.device) if looks else b""
            states = student.hidden_states(ids, attention, tokens.size(1))
            if looks and self.model.training:
                # A forward that draws no random number has no dropout. All ranks agree, since they
                # run a sharded model as often.
                draws = torch.tensor(float(random_state(ids.device) != drawn), device=ids.device)
                self._has_dropout = self.accelerator.reduce(draws, reduction="sum").item() > 0
            reused = None if self._has_dropout is not False else states.detach()
            old = batch.get("old_per_token_logps")
            weights = sample_mean_weights(mask, samples)
            if args.distillation_weight != 1.0:
                weights = weights * args.distillation_weight
            if "sample_weights" in batch:
                weights = weights * batch["sample_weights"].unsqueeze(1)
            hidden, teacher_hidden = states.flatten(0, 1), teacher_hidden.flatten(0, 1)
            weights = weights.flatten().to(torch.promote_types(hidden.dtype, torch.float32))
            teacher_head = self._teacher_head(teacher)
            policy = self._policy_term(batch, hidden, student) if args.has_policy_term else None

            def entropy(states: Tensor, head: Any) -> Tensor:
                return tiled_entropy(
                    states, head, self.temperature, args.loss_tile_tokens, mask=weights
                )

            is_top_k = args.distillation_mode == "topk_logits"  # elsewhere TRL ignores both
            output = tiled_distillation_loss(
                hidden,
                teacher_hidden,
                student.head,
                teacher_head,
                tokens.flatten(),
                token_weights(
                    args.token_weight,
                    args.token_weight_beta,
                    weights,
                    partial(entropy, teacher_hidden, teacher_head),
                    partial(entropy, hidden, student.head),
                ),
                divergence=Divergence(
                    mode=args.distillation_mode,
                    alpha=args.distillation_alpha,
                    top_k=args.distillation_topk if is_top_k else None,
                    add_tail=args.distillation_add_tail and is_top_k,
                ),
                target=args.moved_target(),
                policy=policy,
                temperature=self.temperature,
                old_logps=None if old is None else old.flatten(),
                clip=None if old is None else args.distillation_is_clip,
                tile_tokens=args.loss_tile_tokens,
            )
        if policy is None:
            return output.loss, output, None, reused
        losses = policy.token_losses(slice(None), output.student_logps)
        return output.loss, output, (losses * policy.weights).sum(), reused

    def _policy_term(
        self, batch: dict[str, Tensor], hidden: Tensor, student: SplitModel
    ) -> PolicyTerm:
        weights, old = batch["policy_weights"], batch.get("old_per_token_logps")
        if old is not None and self.importance_sampling_level == "sequence":
            # A ratio of the whole sequence: one walk more over the student's head.
            logps = tiled_token_logps(
                hidden,
                student.head,
                batch["completion_ids"].flatten(),
                self.temperature,
                self.args.loss_tile_tokens,
                mask=weights.flatten(),
            )
            old = sequence_old_logps(logps.view_as(old), old, weights)
        return PolicyTerm(
            batch["advantages"].unsqueeze(1).expand_as(weights).flatten(),
            weights.flatten(),
            None if old is None else old.flatten(),
            epsilon_low=self.epsilon_low,
            epsilon_high=self.epsilon_high,
        )

    @torch.no_grad()
    def _warn_of_padding_once(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        """TRL's loss hands over no positions."""
        if self._verified_model:
            return
        self._verified_model = True

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            output: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return output

        with evaluating(model), self.accelerator.autocast():
            shifts = padding_shifts(logits, inputs["completion_ids"][:1, :8])
        if shifts:
            logger.warning(
                "%s takes the padding before a shorter prompt for tokens, and TRL's loss does not "
                "tell it otherwise: in a batch of several prompts they are scored wrongly. Set "
                "tiled_loss=True and distillation_weight above 0, or use another model.",
                type(self.accelerator.unwrap_model(model)).__name__,
            )

    def _record_loss(
        self, mode: str, per_token_loss: Tensor, mask: Tensor, policy_loss: Tensor | None
    ) -> None:
        mean = (per_token_loss * mask.flatten()).sum() / mask.sum().clamp(min=1)
        mean = self.accelerator.gather(mean).mean().item()
        self._log_self_distillation_metric(mode, mean)
        if policy_loss is not None:
            # Without the term's share of the blend, as TRL logs it.
            weight = self.args.distillation_weight
            share = 1.0 if weight == 1.0 else 1 - weight
            mean = self.accelerator.gather(policy_loss.detach() / share).mean().item()
            self._metrics[mode]["self_distillation/policy_loss"].append(mean)

    def _compute_teacher_student_logits(self, model: Any, teacher_model: Any, inputs: Any) -> Any:
        """TRL's logits, watched: its loss is not touched."""
        output = super()._compute_teacher_student_logits(model, teacher_model, inputs)
        mask = output.loss_mask
        statistics = token_statistics(
            output.student_logits.detach().flatten(0, 1),
            output.teacher_logits.flatten(0, 1),
            output.completion_ids.flatten(),
            mask=mask.flatten(),
            tile_tokens=self.args.loss_tile_tokens,
        )
        # Beside the policy loss every token has one.
        has_loss = output.completion_mask if self.args.distillation_weight < 1 else mask
        self.observe_statistics(statistics.view_as(mask), inputs, mask, len(mask), has_loss)
        return output

    def observe_statistics(
        self,
        statistics: TiledStatistics,
        batch: dict[str, Tensor],
        mask: Tensor,
        samples: int,
        loss_mask: Tensor,
    ) -> None:
        """Takes a micro-batch's entropies; (B, T) each, `samples` with those that were left out.

        `mask` are the tokens that are distilled, which the signal is over, and `loss_mask` those
        that have any loss, which the step's mean and its distance are over. The batch has
        `student_hidden`, (B, T, H), if an evaluation would have the same.
        """
        if not self.model.training:
            return
        information = token_information(self.args.signal_estimator, statistics)
        self.step_scale.observe(information_sum(information, mask))
        if self._step_tokens is not None:
            self._step_tokens.add(batch, loss_mask, batch.get("student_hidden"))
        student, distilled = information_sum(statistics.student_entropy, mask)
        teacher, _ = information_sum(statistics.teacher_entropy, mask)
        counted = (loss_mask != 0).any(-1).sum().to(distilled)
        sums = [student, teacher, distilled, counted, distilled.new_tensor(samples)]
        self._step_sums.append(torch.stack(sums).float())

    # The end of the last micro-batch: the step's mean, its figures, the clip, the guards.

    def _clip_grad_norm(self, model: Any) -> Any:
        self._rescale_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # transformers does not clip
            self._rescale_gradients()
        norm = super()._get_grad_norm(model, grad_norm)
        value, limit = float(norm), self.args.max_grad_norm
        clipped = value * min(1.0, limit / (value + 1e-6)) if limit > 0 else value
        self._metrics["train"]["pgpo/grad_norm_clipped"].append(clipped)
        self._skip_bad_step(value)
        return norm

    @torch.no_grad()
    def _rescale_gradients(self) -> None:
        """Makes the step's mean one over all micro-batches' and ranks' samples with a loss."""
        if self.is_deepspeed_enabled:  # done, and the step is taken
            return
        if (factor := self._sum_up_step()) != 1.0:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, factor)

    def _sum_up_step(self) -> float:
        """Takes the step's figures; returns what its gradients are to be multiplied by."""
        sums = torch.stack(self._step_sums or [torch.zeros(5)]).sum(0).to(self.accelerator.device)
        loss = torch.stack(self._step_losses).sum().view(1)
        total: Tensor = self.accelerator.reduce(torch.cat([sums, loss]), reduction="sum")
        student, teacher, distilled, counted, samples, mean_loss = total.tolist()
        self._is_step_finite = math.isfinite(mean_loss + student + teacher)
        self._has_loss = counted > 0
        metrics = self._metrics["train"]
        if samples:
            metrics["pgpo/distilled_fraction"].append(distilled / samples)
        if distilled:
            metrics["pgpo/student_entropy"].append(student / distilled)
            metrics["pgpo/teacher_entropy"].append(teacher / distilled)
            self._watched["student entropy"] = student / distilled
            self._watched["entropy gap"] = (student - teacher) / distilled
        if self.args.routing and samples:
            metrics["pgpo/policy_fraction"].append((counted - distilled) / samples)
        return self._factor_of_mean(counted, samples)

    def _before_backward(self, loss: Tensor, is_first: bool) -> None:
        """Under DeepSpeed, whose backward clips and steps: takes a micro-batch's loss, whose value
        stays as it is, since it is logged."""
        if is_first:
            self._mean_factor = self._coming_mean_factor()
        if self._mean_factor != 1.0:
            factor = self._mean_factor
            loss.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
        if not self.accelerator.sync_gradients:
            return
        if (found := self._sum_up_step()) != self._mean_factor:
            raise RuntimeError(
                f"the step's gradients were to be multiplied by {found}, and were by "
                f"{self._mean_factor}: expected the masks of the rollouts as they were collected; "
                "set normalize_by_distilled=False where a subclass changes them"
            )
        if self._is_empty() or (self.args.skip_nonfinite_steps and not self._is_step_finite):
            self.step_scale.skip()

    def _coming_mean_factor(self) -> float:
        """`_sum_up_step`'s factor, from the rollouts of the whole step."""
        first = self._step % self.args.steps_per_generation
        rollouts: Any = self._buffered_inputs
        batches = rollouts[first : first + self.args.gradient_accumulation_steps]
        masks = [loss_terms(batch, self.args)["loss_mask"] for batch in batches]
        own = torch.tensor(
            [sum(int((m != 0).any(-1).sum()) for m in masks), sum(map(len, masks))],
            device=self.accelerator.device,
        )
        counted, samples = self.accelerator.reduce(own, reduction="sum").tolist()
        return self._factor_of_mean(counted, samples)

    def _factor_of_mean(self, counted: float, samples: float) -> float:
        is_partial = self.args.averages_by_distilled and counted not in (0, samples)
        return samples / counted if is_partial else 1.0

    def _is_empty(self) -> bool:
        """Whether the step has no distance: momentum's, without a loss, is not taken."""
        return self._step_tokens is not None and not self._has_loss

    def _skip_bad_step(self, grad_norm: float) -> None:
        """Takes the gradients away from a step that is not finite, or empty."""
        skips, has_scaler = self.args.skip_nonfinite_steps, self.accelerator.scaler is not None
        # A gradient scaler skips by itself and tries scales that overflow: only the loss counts.
        is_finite = self._is_step_finite and (has_scaler or math.isfinite(grad_norm))
        drops = self._is_empty() or (skips and not is_finite)
        if drops and not has_scaler and not self.is_deepspeed_enabled:
            # Without gradients the optimizer changes neither parameters nor moments.
            self.model.zero_grad(set_to_none=True)
            self.step_scale.skip()
        if skips and is_finite:
            self.nonfinite_guard.good()
        elif skips:
            step = self.state.global_step + 1
            logger.warning("Step %d skipped: loss or gradient is not finite (%s).", step, grad_norm)
            self.nonfinite_guard.skipped(step, self._last_checkpoint())

    # The optimizer's step, which StepScale multiplies: what it is measured on.

    def _step_log_probs(self, again: bool = False) -> Tensor | None:
        """Of some of its tokens; `again` rounded otherwise."""
        assert self._step_tokens is not None
        read = self._step_tokens.log_probs_again if again else self._step_tokens.log_probs
        with evaluating(self.model), self.accelerator.autocast():
            return read_inside(self.model, partial(read, split_causal_lm(self.model)))  # unwrapped

    # After it: the teacher, the log.

    def _after_optimizer_step(self) -> None:
        if self.teacher is not None:  # told the figures of all ranks: all decide the same
            step = self.state.global_step + 1
            why = self.teacher.update(self._watched, step, self.state.max_steps)
            if (rule := self.teacher.rule) is not None:
                self._metrics["train"]["pgpo/teacher_refreshes"].append(rule.refreshes)
            if why is not None:
                logger.info("Step %d: the student becomes the teacher; %s.", step, why)
        if not self.accelerator.optimizer_step_was_skipped:  # by a gradient scaler
            self._log_step()
        self._forget_step()

    def _log_step(self) -> None:
        record, metrics = self.step_scale.last, self._metrics["train"]
        figures = {
            "information_signal": record.signal,
            "target_distance": record.asked,
            "distance": record.moved,
            "distance_rounding": record.rounding or None,
            "skipped_steps": self.nonfinite_guard.total,
        }
        if self._step_tokens is None or record.asked is not None:  # a step that was taken
            rate = self._get_learning_rate() * record.multiplier
            figures = {"multiplier": record.multiplier, "effective_learning_rate": rate} | figures
        if record.signal is not None:
            self._warn_of_standstill(record.factor)
        if self.args.collapse_warning:
            sentences = self.collapse_monitor.update(self._watched)
            figures["collapse_warnings"] = len(sentences)
            for sentence in sentences:
                logger.warning("%s", sentence)
        for name, value in figures.items():
            if value is not None:
                metrics[f"pgpo/{name}"].append(value)

    def _warn_of_standstill(self, factor: float) -> None:
        """Names a brake that is not released, once: the factor is at `rho_min`, as far as that is a
        tenth at most, or at a hundredth, since exp(-alpha) may be above `rho_min` for good.

        Choice: ours, as braking is. No braked run of `experiments/collapse_confirm`, healthy or
        not, had more than 5 such steps in a row; those of `collapse_remedies` that stood still
        have 80.
        """
        is_cut = factor <= min(max(self.args.rho_min, 0.01), 0.1)
        self._standing = self._standing + 1 if is_cut else 0
        if self._standing == self.standstill_patience:
            logger.warning(
                "For %d steps in a row the signal has cut the step to next to nothing "
                "(now %.2g of it): the run hardly learns. If it has learned what its teacher "
                "knows, stop it. Else look at what the teacher is shown (feedback, "
                "demonstrations), lower sensitivity, or raise target_distance or the "
                "learning rate.",
                self._standing,
                factor,
            )

    # A checkpoint: what TRL forgets in it.

    def _save_state(self, folder: Path) -> None:
        file = checkpoints.rollouts_file(self.accelerator.process_index)
        checkpoints.save_rollouts(folder / file, self._buffered_inputs)
        if self.teacher is not None:
            plugin = self.accelerator.state.fsdp_plugin if self.is_fsdp_enabled else None
            in_shards = plugin is not None and "SHARDED" in str(plugin.state_dict_type)
            self.teacher.save(folder, in_shards=in_shards, keep=self.args.should_save)
        if not self.args.should_save:
            return
        state = {
            "step": self._step,
            "multiplier": self.step_scale.state_dict(),
            "skipped_steps": self.nonfinite_guard.total,
            "standstill": self._standing,
            "collapse": self.collapse_monitor.state_dict(),
            "diagnostics": {mode: dict(c) for mode, c in self._diagnostic_counters.items()},
            "teacher": None if self.teacher is None else self.teacher.progress(),
        }
        checkpoints.save_json(folder / checkpoints.STATE, state)

    def _state_files(self, rank: int) -> tuple[str, ...]:
        return checkpoints.STATE, checkpoints.rollouts_file(rank)

    def _load_state(self, folder: Path) -> None:
        state = checkpoints.load_json(folder / checkpoints.STATE)
        self._step = state["step"]
        self.step_scale.load_state_dict(state["multiplier"])
        self.nonfinite_guard.total = state["skipped_steps"]
        self._standing = state["standstill"]
        self.collapse_monitor.load_state_dict(state["collapse"])
        for mode, counters in state["diagnostics"].items():
            self._diagnostic_counters[mode].update(counters)
        file = checkpoints.rollouts_file(self.accelerator.process_index)
        self._buffered_inputs = checkpoints.load_rollouts(folder / file, self.accelerator.device)
        if self.teacher is not None:
            self.teacher.load_progress(state["teacher"])
            self.teacher.load(folder)

    def _load_best_model(self) -> None:
        """Transformers'; then the teacher of that step."""
        super()._load_best_model()
        if self.teacher is not None and self.args.exact_resume:
            self.teacher.load(Path(self.state.best_model_checkpoint))
        elif self.teacher is not None:
            logger.warning(
                "The model is that of the best step, its teacher that of the last one: "
                "checkpoints hold no teacher with exact_resume=False."
            )


def random_state(device: torch.device) -> bytes:
    """States of the generators that a forward on a device may draw from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        own = torch.get_device_module(device).get_rng_state
        states.append(own() if device.type == "mps" else own(device))
    return b"".join(state.numpy().tobytes() for state in states)


class _StepEnd(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer that the optimizer has stepped, before transformers logs; at the start
    that what a stopped run has left of a step is none of this one's."""

    def __init__(self, trainer: PGPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._forget_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._after_optimizer_step()
