"""One optimizer step, in order: observe (each micro-batch), rescale, clip, guard, step, log."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from ..trl.contract import SDPOTrainer
from ..trl.guards import CollapseMonitor, NonFiniteGuard, StandstillGuard
from .config import PGPOConfig
from .signal import TokenStatistics, information_sum, token_information
from .step_scale import StepScale
from .step_tokens import StepTokens

logger = logging.getLogger(__name__)


class OptimizerStepMixin(SDPOTrainer):  # type: ignore[misc]
    """Scales the host's steps, takes their mean over what was distilled, guards and logs them.

    Needs `_prepare_steps` before the host's `__init__`, and a `StepEnd` among the callbacks.
    """

    def _prepare_steps(self, args: PGPOConfig) -> None:
        self.step_scale: Any = None  # a StepScale, made with the optimizer
        self.nonfinite_guard = NonFiniteGuard(args.max_nonfinite_steps)
        self.collapse_monitor = CollapseMonitor()
        self.standstill_guard = StandstillGuard()
        self._step_tokens: StepTokens | None = None
        self._watched: dict[str, float] = {}
        self._forget_step()

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if self.step_scale is None:
            # A user may pass accelerate's wrapper.
            inner = getattr(optimizer, "optimizer", optimizer)
            distance = self.args.distance_control()
            if distance is not None:
                self._step_tokens = StepTokens(
                    self.args.distance_share,
                    exact=self.args.distance_estimator == "exact",
                    limit=self.args.distance_tokens,
                    temperature=self.temperature,
                    autocast=self.accelerator.autocast,
                )
            self.step_scale = StepScale(
                inner,
                self.args.viscosity(),
                distance=distance,
                policy=self._step_log_probs if distance else None,
                scale_weight_decay=self.args.scale_weight_decay,
            )
        return optimizer

    def _step_log_probs(self) -> Tensor | None:
        assert self._step_tokens is not None
        return self._step_tokens.log_probs(self.model)  # never wrapped

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        if self.model.training:
            self._step_losses.append(loss.detach().float())
        return loss

    def observe_statistics(
        self,
        statistics: TokenStatistics,
        batch: dict[str, Tensor],
        mask: Tensor,
        samples: int,
        loss_mask: Tensor,
    ) -> None:
        """Takes a micro-batch's entropies; (B, T) each, `samples` with those that were left out.

        `mask` are the tokens that are distilled, which the signal is over, and `loss_mask` those
        that have any loss, which the step's mean and its distance are over.
        """
        sums = [
            information_sum(values, mask)
            for values in (statistics.student_entropy, statistics.teacher_entropy)
        ]
        distilled = sums[0].sequences
        if not self.model.training:
            return
        information = token_information(self.args.signal_estimator, statistics)
        self.step_scale.observe(information_sum(information, mask))
        if self._step_tokens is not None:
            self._step_tokens.add(batch, loss_mask)
        self._step_samples += samples
        counted = (loss_mask != 0).any(-1).sum()
        sizes = torch.stack([sums[0].total, sums[1].total, distilled, counted.to(distilled)])
        self._step_sums.append(sizes.float())

    def _forget_step(self) -> None:
        self._step_samples = 0
        self._step_sums: list[Tensor] = []
        self._step_losses: list[Tensor] = []
        if self._step_tokens is not None:
            self._step_tokens.forget()

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
        self._skip_without_loss()
        return norm

    @torch.no_grad()
    def _rescale_gradients(self) -> None:
        """Makes the step's mean one over all micro-batches' and ranks' samples with a loss."""
        device = self.accelerator.device
        parts = [
            torch.stack(self._step_sums or [torch.zeros(4)]).sum(0).to(device),
            torch.stack(self._step_losses).sum().view(1),
            torch.tensor([float(self._step_samples)], device=device),
        ]
        total: Tensor = self.accelerator.reduce(torch.cat(parts), reduction="sum")
        student, teacher, distilled, counted, loss, samples = total.tolist()
        self._is_step_finite = math.isfinite(loss + student + teacher)
        self._has_loss = counted > 0
        self._record_step(student, teacher, distilled, samples)
        if self.args.routing and samples:
            fraction = (counted - distilled) / samples
            self._metrics["train"]["pgpo/policy_fraction"].append(fraction)
        # TRL's blend with the policy loss is a mean over all samples.
        is_ours = self.args.normalize_by_distilled and self.args.distillation_weight == 1.0
        if is_ours and counted not in (0.0, samples):
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, samples / counted)

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
            self._watched["entropy gap"] = (student - teacher) / distilled

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
            self.step_scale.skip()
        step = self.state.global_step + 1
        logger.warning("Step %d skipped: loss or gradient is not finite (%s).", step, grad_norm)
        self.nonfinite_guard.skipped(step, self._last_checkpoint())

    def _skip_without_loss(self) -> None:
        """A step in which no sample has a loss has no distance, and momentum's is not taken."""
        if self._step_tokens is None or self._has_loss or self.accelerator.scaler is not None:
            return
        self.model.zero_grad(set_to_none=True)
        self.step_scale.skip()

    def _after_optimizer_step(self) -> None:
        if self.accelerator.optimizer_step_was_skipped:  # by a gradient scaler
            self.step_scale.discard()
        else:
            self._log_step()
        self._watched = {}
        self._forget_step()

    def _log_step(self) -> None:
        record, metrics = self.step_scale.last, self._metrics["train"]
        is_taken = self._step_tokens is None or record.asked is not None
        if is_taken:
            metrics["pgpo/multiplier"].append(record.multiplier)
            metrics["pgpo/effective_learning_rate"].append(
                self._get_learning_rate() * record.multiplier
            )
        if record.signal is not None:
            metrics["pgpo/information_signal"].append(record.signal)
        for name, value in (("target_distance", record.asked), ("distance", record.moved)):
            if value is not None:
                metrics[f"pgpo/{name}"].append(value)
        metrics["pgpo/skipped_steps"].append(self.nonfinite_guard.total)
        if self.standstill_guard.update(record.signal, record.factor, self.args.rho_min):
            logger.warning(
                "For %d steps in a row the signal has cut the step to next to nothing "
                "(now %.2g of it): the run hardly learns. If it has learned what its teacher "
                "knows, stop it. Else look at what the teacher is shown (feedback, "
                "demonstrations), lower sensitivity, or raise target_distance or the "
                "learning rate.",
                self.standstill_guard.patience,
                record.factor,
            )
        if self.args.collapse_warning:
            sentences = self.collapse_monitor.update(self._watched)
            metrics["pgpo/collapse_warnings"].append(len(sentences))
            for sentence in sentences:
                logger.warning("%s", sentence)


class StepEnd(TrainerCallback):  # type: ignore[misc]
    """Tells the trainer that the optimizer has stepped, before the host logs."""

    def __init__(self, trainer: OptimizerStepMixin) -> None:
        self._trainer = trainer

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trainer._after_optimizer_step()
