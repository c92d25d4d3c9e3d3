"""PGPO on TRL's SDPO trainer: the optimizer step, read downwards.

Collect (`rollouts`), teach (`teacher_context`, `teacher`), loss (`distillation`) and signal of each
micro-batch; then scale (`step_scale`), clip, step, log (`state`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn
from transformers import TrainerCallback

from ..loss.heads import SplitModel, evaluating, split_causal_lm
from ..loss.tiled import TiledStatistics
from ..models import fold_output_head
from ..sharding import loss_inside, read_inside
from ..trl.contract import ForwardRedirection, SDPOTrainer
from ..trl.guards import WarmupCheck
from ..trl.logs import MetricsLog
from ..trl.rounding import RoundingCheck, precision_before_trl
from .config import PGPOConfig
from .deepspeed import DeepSpeedMixin
from .distance import StepTokens
from .distillation import DistillationMixin, in_all_rows, needed_part
from .preflight import BEST, check_before_loading, check_chat_template, refuse_unsupported
from .rollouts import RolloutMixin
from .signal import information_sum, token_information
from .state import PGPOStateMixin
from .step_scale import StepScale
from .teacher import TeacherMixin
from .teacher_context import RolloutTeacherContextBuilder

logger = get_logger(__name__)


class PGPOTrainer(  # type: ignore[misc]
    RolloutMixin,
    TeacherMixin,
    DistillationMixin,
    DeepSpeedMixin,
    PGPOStateMixin,
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
        eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers,
            peft_config: as TRL's.

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
            model,
            args,
            train_dataset,
            eval_dataset,
            reward_funcs,
            optimizers,
            peft_config,
        )
        args.check_optimizer(optimizers[0])
        self._prepare_state(args)
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

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if self.step_scale is None and not self.is_deepspeed_enabled:  # which makes another
            # A user may pass accelerate's wrapper.
            self._make_step_scale(StepScale, getattr(optimizer, "optimizer", optimizer))
        return optimizer

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
            policy_again=self._step_log_probs_again if distance else None,
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
        self._verify_once(student, batch)
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

    def _step_log_probs(self) -> Tensor | None:
        assert self._step_tokens is not None
        return self._read_step(self._step_tokens.log_probs)

    def _step_log_probs_again(self) -> Tensor | None:
        assert self._step_tokens is not None
        return self._read_step(self._step_tokens.log_probs_again)

    def _read_step(self, read: Callable[[SplitModel], Tensor | None]) -> Tensor | None:
        with evaluating(self.model), self.accelerator.autocast():
            return read_inside(self.model, partial(read, split_causal_lm(self.model)))  # unwrapped

    # After it: the teacher, the log.

    def _after_optimizer_step(self) -> None:
        self._refresh_teacher()
        if not self.accelerator.optimizer_step_was_skipped:  # by a gradient scaler
            self._log_step()
        self._forget_step()

    def _refresh_teacher(self) -> None:
        """Takes the step's figures, which are of all ranks: all decide the same."""
        if self.teacher is None:
            return
        step = self.state.global_step + 1
        why = self.teacher.update(self._watched, step, self.state.max_steps)
        if (rule := self.teacher.rule) is not None:
            self._metrics["train"]["pgpo/teacher_refreshes"].append(rule.refreshes)
        if why is not None:
            logger.info("Step %d: the student becomes the teacher; %s.", step, why)


class _StepEnd(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer that the optimizer has stepped, before transformers logs; at the start
    that what a stopped run has left of a step is none of this one's."""

    def __init__(self, trainer: PGPOTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._forget_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._after_optimizer_step()
