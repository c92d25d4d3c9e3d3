"""The distillation loss of a micro-batch, and what it tells about the correction."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from accelerate.logging import get_logger
from torch import Tensor, nn

from ..loss.divergence import Divergence
from ..loss.heads import (
    SplitModel,
    evaluating,
    padding_shifts,
    split_causal_lm,
    verify_padding,
    verify_split,
)
from ..loss.policy_term import PolicyTerm, sequence_old_logps
from ..loss.tiled import DistillationOutput, tiled_distillation_loss
from ..loss.token_statistics import tiled_entropy, tiled_token_logps, token_statistics
from ..loss.token_weights import token_weights
from ..trl.contract import ForwardRedirection, SDPOTrainer
from .loss_terms import in_all_rows, needed_part, sample_mean_weights

logger = get_logger(__name__)


class DistillationMixin(SDPOTrainer):  # type: ignore[misc]
    """Replaces TRL's loss by the tiled one, or watches TRL's; the signal comes from both.

    Calls `observe_statistics`, which the trainer defines, once per micro-batch.
    """

    _verified_model = False

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
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self._tiled_loss(model, inputs)
        scale = self.current_gradient_accumulation_steps if self.model.training else 1.0
        return loss / scale

    def _tiled_loss(self, model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
        samples = len(inputs["completion_ids"])
        batch = needed_part(inputs, self.args)
        mask = batch["distilled_mask"]
        teacher, teacher_hidden = self._teacher_hidden_states(batch)
        teacher_hidden = in_all_rows(teacher_hidden, batch)
        student = split_causal_lm(self.accelerator.unwrap_model(model))
        self._verify_once(student, batch)
        work = partial(self._distill, student, teacher, samples)
        output, policy_loss = self._inside_forward(model, student, work, batch, teacher_hidden)
        self._record_loss(model, output.per_token_loss, mask)
        if policy_loss is not None:
            self._record_policy_loss(model, policy_loss)
        statistics = output.view_as(mask)
        self.observe_statistics(statistics, batch, mask, samples, batch["loss_mask"])
        return output.loss

    def _distill(
        self,
        student: SplitModel,
        teacher: SplitModel,
        samples: int,
        batch: dict[str, Tensor],
        teacher_hidden: Tensor,
    ) -> tuple[DistillationOutput, Tensor | None]:
        args, mask, tokens = self.args, batch["distilled_mask"], batch["completion_ids"]
        with self.accelerator.autocast():
            ids = torch.cat([batch["prompt_ids"], tokens], dim=1)
            attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            hidden = student.hidden_states(ids, attention, tokens.size(1))
            old = batch.get("old_per_token_logps")
            weights = sample_mean_weights(mask, samples)
            if args.distillation_weight != 1.0:
                weights = weights * args.distillation_weight
            if "sample_weights" in batch:
                weights = weights * batch["sample_weights"].unsqueeze(1)
            hidden, teacher_hidden = hidden.flatten(0, 1), teacher_hidden.flatten(0, 1)
            weights = weights.flatten().to(torch.promote_types(hidden.dtype, torch.float32))
            teacher_head = self._teacher_head(teacher)
            policy = self._policy_term(batch, hidden, student) if args.has_policy_term else None

            def entropy(states: Tensor, head: Any) -> Tensor:
                return tiled_entropy(
                    states, head, self.temperature, args.loss_tile_tokens, mask=weights
                )

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
                divergence=self._divergence(),
                target=args.moved_target(),
                policy=policy,
                temperature=self.temperature,
                old_logps=None if old is None else old.flatten(),
                clip=None if old is None else args.distillation_is_clip,
                tile_tokens=args.loss_tile_tokens,
            )
        if policy is None:
            return output, None
        losses = policy.token_losses(slice(None), output.student_logps)
        return output, (losses * policy.weights).sum()

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

    def _divergence(self) -> Divergence:
        args = self.args
        is_top_k = args.distillation_mode == "topk_logits"  # elsewhere the host ignores both
        return Divergence(
            mode=args.distillation_mode,
            alpha=args.distillation_alpha,
            top_k=args.distillation_topk if is_top_k else None,
            add_tail=args.distillation_add_tail and is_top_k,
        )

    @torch.no_grad()
    def _teacher_hidden_states(self, batch: dict[str, Tensor]) -> tuple[SplitModel, Tensor]:
        teacher = split_causal_lm(self.accelerator.unwrap_model(self.teacher_model))
        with self._get_teacher_context_for_self_distillation(), self.accelerator.autocast():
            hidden = teacher.hidden_states(
                batch["teacher_input_ids"],
                batch["teacher_attention_mask"],
                batch["completion_ids"].size(1),
            )
        return teacher, hidden

    def _teacher_head(self, teacher: SplitModel) -> Any:
        """The teacher's head; an adapter on it is switched for each of its tiles."""
        if not teacher.head.has_adapter:
            return teacher.head

        def head(hidden: Tensor) -> Tensor:
            with self._get_teacher_context_for_self_distillation():
                return teacher.head(hidden)

        return head

    def _inside_forward(self, model: nn.Module, split: SplitModel, work: Any, *inputs: Any) -> Any:
        """Runs `work(*inputs)` inside the forward of the wrapper (DDP), if there is one.

        So the wrapper sees every use of its parameters, the head's included, and moves the inputs
        to the device of its module.
        """
        if model is split.model:
            return work(*inputs)
        return ForwardRedirection()(model, split.model, work, *inputs)

    def _verify_once(self, split: SplitModel, batch: dict[str, Tensor]) -> None:
        if not self._verified_model:
            ids = batch["completion_ids"][:1, :8]
            verify_split(split, ids, self._autocast)
            verify_padding(split, ids, self._autocast)
            self._verified_model = True

    @torch.no_grad()
    def _warn_of_padding_once(self, model: nn.Module, inputs: dict[str, Tensor]) -> None:
        """TRL's loss hands over no positions."""
        if self._verified_model:
            return
        self._verified_model = True

        def logits(ids: Tensor, mask: Tensor) -> Tensor:
            output: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            return output

        with evaluating(model), self._autocast():
            shifts = padding_shifts(logits, inputs["completion_ids"][:1, :8])
        if shifts:
            logger.warning(
                "%s takes the padding before a shorter prompt for tokens, and TRL's loss does not "
                "tell it otherwise: in a batch of several prompts they are scored wrongly. Set "
                "tiled_loss=True and distillation_weight above 0, or use another model.",
                type(self.accelerator.unwrap_model(model)).__name__,
            )

    def _autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def _record_loss(self, model: nn.Module, per_token_loss: Tensor, mask: Tensor) -> None:
        mean = (per_token_loss * mask.flatten()).sum() / mask.sum().clamp(min=1)
        mode = "train" if model.training else "eval"
        self._log_self_distillation_metric(mode, self.accelerator.gather(mean).mean().item())

    def _record_policy_loss(self, model: nn.Module, loss: Tensor) -> None:
        """Under TRL's name, and without the term's share of the blend, as TRL does."""
        weight = self.args.distillation_weight
        share = 1.0 if weight == 1.0 else 1 - weight
        mean = self.accelerator.gather(loss.detach() / share).mean().item()
        mode = "train" if model.training else "eval"
        self._metrics[mode]["self_distillation/policy_loss"].append(mean)

    def _compute_teacher_student_logits(self, model: Any, teacher_model: Any, inputs: Any) -> Any:
        """The host's logits, watched: its loss is not touched."""
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

    @torch.no_grad()
    def _compute_rollout_logps(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        completion_ids: Tensor,
        completion_mask: Tensor,
    ) -> Tensor | None:
        """The host's, tile by tile."""
        args = self.args
        is_on_policy = (
            args.gradient_accumulation_steps % (args.steps_per_generation * self.num_iterations)
            == 0
        )
        if not self._uses_tiled_loss() or is_on_policy:
            return super()._compute_rollout_logps(
                prompt_ids, prompt_mask, completion_ids, completion_mask
            )
        split = split_causal_lm(self.model)  # never wrapped, and without a gradient DDP has no part
        with self.accelerator.autocast():
            hidden = split.hidden_states(
                torch.cat([prompt_ids, completion_ids], dim=1),
                torch.cat([prompt_mask, completion_mask], dim=1),
                completion_ids.size(1),
            )
            logps = tiled_token_logps(
                hidden.flatten(0, 1),
                split.head,
                completion_ids.flatten(),
                self.temperature,
                args.loss_tile_tokens,
                mask=completion_mask.flatten(),
            )
        return logps.view_as(completion_ids)
