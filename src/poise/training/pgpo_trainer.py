"""PGPO on TRL's SDPO trainer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType, is_peft_model
from torch import Tensor
from transformers import TrainerCallback

from ..core.information import TokenStatistics, information_sum
from ..models import fold_output_head
from ._host import is_pure_lora_training
from .distillation import DistillationMixin
from .exact_resume import ExactResumeMixin
from .guards import CollapseMonitor, NonFiniteGuard
from .hidden_states import split_causal_lm
from .metrics_log import MetricsLog
from .pgpo_config import PGPOConfig
from .preflight import check_before_loading, check_chat_template, first_rows
from .rollouts import RolloutMixin, distributed_sum
from .step_scale import StepScale
from .teacher import EMATeacher, add_teacher_adapter, copy_as_teacher
from .teacher_context import RolloutTeacherContextBuilder

logger = logging.getLogger(__name__)


class _StepEnd(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer that the optimizer has stepped, before the host logs."""

    def __init__(self, trainer: PGPOTrainer) -> None:
        self._trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._after_optimizer_step()


class PGPOTrainer(ExactResumeMixin, RolloutMixin, DistillationMixin):  # type: ignore[misc]
    """Trainer for Physics-Guided Policy Optimization.

    TRL's `SDPOTrainer`; the only change to the method is that each optimizer step is multiplied by
    a function of the information signal (`StepScale`). With `sensitivity=0` it is SDPO. The other
    changes mend the host, each on a switch of `PGPOConfig`; with all of them off and sensitivity 0
    it equals `SDPOTrainer` bit for bit.

    Args:
        model: as TRL's: a path, a hub id, or a model.
        reward_funcs: as TRL's; a function may also return `(reward, text)` pairs, whose text is
            feedback on that completion for the teacher.
        args: the configuration.
        train_dataset: rows with `prompt`, optionally `privileged_context`, and columns for rewards.
        eval_dataset, processing_class, reward_processing_classes, callbacks, optimizers,
            peft_config: as TRL's.

    Raises:
        ValueError: bad input, each with its own message, before the model is loaded where possible.
        TypeError: a reward function that returns something else than one entry per completion.

    Reference: PGPO (arXiv 2606.03620), SDPO (arXiv 2601.20802).
    """

    config_cls = PGPOConfig
    _tag_names = ["trl", "sdpo", "pgpo", "poise"]  # noqa: RUF012 (the host's class attribute)
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
        model = check_before_loading(model, args, train_dataset)
        self.step_scale: Any = None  # a StepScale, made with the optimizer
        self.nonfinite_guard = NonFiniteGuard(args.max_nonfinite_steps)
        self.collapse_monitor = CollapseMonitor()
        self._watched: dict[str, float] = {}
        self._forget_step()
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
        self._refuse_unsupported()
        if self._uses_tiled_loss():
            split_causal_lm(self.model)  # refuses what it cannot split
            fold_output_head(self.model)
        rows = first_rows(train_dataset, 1)
        check_chat_template(rows, self.processing_class)
        self.teacher_context_builder = RolloutTeacherContextBuilder(self)
        self._wrap_reward_functions()
        if args.check_rewards:
            self._check_reward_functions(rows[0])
        self.add_callback(_StepEnd(self))
        self.add_callback(MetricsLog())

    def _refuse_unsupported(self) -> None:
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise ValueError(
                "PGPOTrainer cannot run under DeepSpeed, whose engine steps the optimizer inside "
                "the backward; use DDP, or TRL's SDPOTrainer"
            )
        whole = ("tiled_loss", "exact_resume", "teacher_from_student")
        if self.is_fsdp_enabled and (on := [name for name in whole if getattr(self.args, name)]):
            raise ValueError(
                f"under FSDP no rank holds a whole model, which {', '.join(on)} need; set them to "
                "False, or use DDP"
            )

    def _setup_teacher_model(self) -> None:
        """The host's; but teachers start from the student in memory, and can be saved."""
        args, kind = self.args, self.args.teacher_model_kind
        is_adapter = kind == "ema" and is_pure_lora_training(self.model, self.accelerator)
        is_copy = (
            kind in ("ema", "base") and not is_peft_model(self.model) and not self.is_fsdp_enabled
        )
        if is_adapter and (args.teacher_from_student or args.exact_resume):
            add_teacher_adapter(self.model, from_student=args.teacher_from_student)
            self.teacher_model = self.model
            self._add_ema_teacher(None)
        elif is_copy and args.teacher_from_student:
            self.teacher_model = copy_as_teacher(self.model)
            if kind == "ema":
                self._add_ema_teacher(self.teacher_model)
        else:
            super()._setup_teacher_model()
            if is_copy and kind == "ema" and args.exact_resume:
                self.ema_teacher = EMATeacher(
                    self.model, self.teacher_model, 0.0, 1
                )  # saves, never updates

    def _add_ema_teacher(self, teacher: Any) -> None:
        args = self.args
        self.ema_teacher = EMATeacher(
            self.model, teacher, args.teacher_update_rate, args.teacher_sync_steps
        )
        self.add_callback(self.ema_teacher)

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if self.step_scale is None:
            inner = getattr(
                optimizer, "optimizer", optimizer
            )  # a user may pass accelerate's wrapper
            self.step_scale = StepScale(
                inner, self.args.viscosity(), scale_weight_decay=self.args.scale_weight_decay
            )
        return optimizer

    # One optimizer step, in order: observe (each micro-batch), rescale, clip, guard, step, log.

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if self.model.training:
            self._step_losses.append(loss.detach().float())
        return loss

    def observe_statistics(self, statistics: TokenStatistics, mask: Tensor, samples: int) -> None:
        """Takes a micro-batch's entropies; (B, T) each, `samples` with those that were left out."""
        sums = [
            information_sum(values, mask)
            for values in (statistics.student_entropy, statistics.teacher_entropy)
        ]
        distilled = sums[0].sequences
        if not self.model.training:
            return
        self.step_scale.observe(self._information(statistics, mask))
        self._step_samples += samples
        self._step_sums.append(torch.stack([sums[0].total, sums[1].total, distilled]).float())

    def _forget_step(self) -> None:
        self._step_samples = 0
        self._step_sums: list[Tensor] = []
        self._step_losses: list[Tensor] = []

    def _clip_grad_norm(self, model: Any) -> Any:
        self._rescale_gradients()
        return super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if grad_norm is None:  # the host does not clip
            self._rescale_gradients()
        norm = super()._get_grad_norm(model, grad_norm)
        value, limit = float(norm), self.args.max_grad_norm
        clipped = value * min(1.0, limit / (value + 1e-6)) if limit > 0 else value
        self._metrics["train"]["pgpo/grad_norm_clipped"].append(clipped)
        self._skip_if_nonfinite(value)
        return norm

    @torch.no_grad()
    def _rescale_gradients(self) -> None:
        """Makes the step's mean one over the distilled samples, of all micro-batches and ranks."""
        sums = torch.stack(self._step_sums).sum(0).tolist() if self._step_sums else [0.0] * 3
        loss = torch.stack(self._step_losses).sum().item()
        student, teacher, distilled, samples, loss = distributed_sum(
            [*sums, float(self._step_samples), loss], self.accelerator
        )
        self._is_step_finite = math.isfinite(loss + student + teacher)
        self._record_step(student, teacher, distilled, samples)
        # With a policy loss beside it, the samples that are not distilled have a gradient too.
        is_pure = self.args.normalize_by_distilled and self.args.distillation_weight == 1.0
        if is_pure and distilled not in (0.0, samples):
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, samples / distilled)

    def _record_step(
        self, student: float, teacher: float, distilled: float, samples: float
    ) -> None:
        metrics = self._metrics["train"]
        if samples:
            metrics["pgpo/distilled_fraction"].append(distilled / samples)
        if distilled:
            metrics["pgpo/student_entropy"].append(student / distilled)
            metrics["pgpo/teacher_entropy"].append(teacher / distilled)
            self._watched["student entropy"] = student / distilled

    def _skip_if_nonfinite(self, grad_norm: float) -> None:
        if not self.args.skip_nonfinite_steps:
            return
        # A gradient scaler skips by itself and tries scales that overflow: only the loss counts.
        has_scaler = self.accelerator.scaler is not None
        if self._is_step_finite and (has_scaler or math.isfinite(grad_norm)):
            return self.nonfinite_guard.good()
        if not has_scaler:
            # Without gradients the optimizer changes neither parameters nor moments.
            self.model.zero_grad(set_to_none=True)
            self.step_scale.discard()
        step = self.state.global_step + 1
        logger.warning("Step %d skipped: loss or gradient is not finite (%s).", step, grad_norm)
        self.nonfinite_guard.skipped(step, self._last_checkpoint())

    def _after_optimizer_step(self) -> None:
        if self.accelerator.optimizer_step_was_skipped:  # by a gradient scaler
            self.step_scale.discard()
        else:
            self._log_step()
        self._watched = {}
        self._forget_step()

    def _log_step(self) -> None:
        record, metrics = self.step_scale.last, self._metrics["train"]
        metrics["pgpo/multiplier"].append(record.multiplier)
        if record.signal is not None:
            metrics["pgpo/information_signal"].append(record.signal)
        metrics["pgpo/effective_learning_rate"].append(
            self._get_learning_rate() * record.multiplier
        )
        metrics["pgpo/skipped_steps"].append(self.nonfinite_guard.total)
        if self.args.collapse_warning:
            sentences = self.collapse_monitor.update(self._watched)
            metrics["pgpo/collapse_warnings"].append(len(sentences))
            for sentence in sentences:
                logger.warning("%s", sentence)
