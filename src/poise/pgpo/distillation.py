"""The loss of a micro-batch: which samples have which term of it, and the terms.

The statistics of both models that it makes on the way are the information signal's.
"""

from __future__ import annotations

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
    verify_padding,
    verify_split,
)
from ..loss.terms import PolicyTerm, sequence_old_logps, token_weights
from ..loss.tiled import (
    DistillationOutput,
    tiled_distillation_loss,
    tiled_entropy,
    tiled_token_logps,
    token_statistics,
)
from ..trl.contract import SDPOTrainer
from .rollouts import success_threshold

logger = get_logger(__name__)


class DistillationMixin(SDPOTrainer):  # type: ignore[misc]
    """The tiled loss, and TRL's, watched; each calls the trainer's `observe_statistics`."""

    _verified_model = False
    _has_dropout: bool | None = None  # in training; None until its first forward

    def _uses_tiled_loss(self) -> bool:
        # Weight 0 is the policy loss alone: nothing is distilled.
        return self.args.tiled_loss and self.args.distillation_weight > 0

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

    def _verify_once(self, split: SplitModel, batch: dict[str, Tensor]) -> None:
        if not self._verified_model:
            ids = batch["completion_ids"][:1, :8]
            verify_split(split, ids, self.accelerator.autocast)
            verify_padding(split, ids, self.accelerator.autocast)
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


def random_state(device: torch.device) -> bytes:
    """States of the generators that a forward on a device may draw from."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        own = torch.get_device_module(device).get_rng_state
        states.append(own() if device.type == "mps" else own(device))
    return b"".join(state.numpy().tobytes() for state in states)


# Which samples have which term, and the part of the batch that the terms need.


def needed_part(inputs: dict[str, Tensor], args: Any) -> dict[str, Tensor]:
    """TRL's micro-batch (B, T) with the terms of its loss, without samples that have none, columns
    of padding alone, and the teacher's prompts of samples that are not distilled.

    All these cost a forward and change no loss. One sample stays if none has a term, so that every
    rank has a backward.

    Returns:
        The batch, and in it, (B', T') each: `distilled_mask`; `policy_weights`, what a token's
        policy term weighs, where there is such a term; `loss_mask`, the tokens that have any.
        `teacher_rows` are the places of the teacher's prompts in the batch, where it has fewer.
    """
    terms = loss_terms(inputs, args)
    rows, taught = terms["loss_mask"].any(-1), terms["distilled_mask"].any(-1)
    rows[0] = rows[0] | ~rows.any()
    taught = taught | (rows & (rows.cumsum(0) == 1) & ~taught.any())
    masks = {"completion_mask": rows, "prompt_mask": rows, "teacher_attention_mask": taught}
    used = [(inputs[name].bool() & own.unsqueeze(1)).any(0) for name, own in masks.items()]
    places = [used[0].sum(), *(columns.int().argmax() for columns in used[1:])]
    # One copy to the CPU, whatever the samples and columns.
    *flags, end, prompt, teacher = torch.cat([rows, taught, torch.stack(places)]).tolist()
    kept = [i for i, flag in enumerate(flags[: len(rows)]) if flag]
    shown = [i for i, flag in enumerate(flags[len(rows) :]) if flag]
    of_rows, of_taught = (torch.tensor(part, device=rows.device) for part in (kept, shown))
    batch = {
        name: value[of_taught if name in _TEACHER else of_rows]
        for name, value in (inputs | terms).items()
        if isinstance(value, Tensor) and value.ndim > 0
    }
    if shown != kept:
        batch["teacher_rows"] = torch.tensor([kept.index(i) for i in shown], device=rows.device)
    cut = inputs["completion_ids"].size(1) - max(1, end)
    columns = {"prompt_ids": (prompt, 0), "prompt_mask": (prompt, 0)}
    columns |= dict.fromkeys(_TEACHER, (teacher, cut))
    columns |= dict.fromkeys((*_COMPLETION, *terms), (0, cut))
    for name in columns.keys() & batch.keys():
        left, right = columns[name]
        batch[name] = batch[name][:, left : batch[name].size(1) - right]
    return batch


_TEACHER = ("teacher_input_ids", "teacher_attention_mask")
_COMPLETION = ("completion_ids", "completion_mask", "old_per_token_logps")


def in_all_rows(hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The teacher's hidden states at their places in the batch; zeros, never read, elsewhere."""
    if "teacher_rows" not in batch:
        return hidden
    zeros = hidden.new_zeros(len(batch["completion_ids"]), *hidden.shape[1:])
    return zeros.index_copy(0, batch["teacher_rows"], hidden)


def loss_terms(inputs: dict[str, Tensor], args: Any) -> dict[str, Tensor]:
    """The masks and weights of a micro-batch's terms; see `needed_part`."""
    mask = inputs["completion_mask"]
    distilled = inputs.get("self_distillation_mask")
    if args.routing:
        failed = ~(inputs["rewards"] >= success_threshold(args))
        distilled = failed if distilled is None else distilled * failed
    distilled_mask = mask if distilled is None else mask * distilled.unsqueeze(1)
    if not args.has_policy_term:
        return {"distilled_mask": distilled_mask, "loss_mask": distilled_mask}
    # An advantage of zero is no term; a rollout without a sibling (nan) has none to compare with.
    has_term = inputs["advantages"].nan_to_num() != 0
    if args.routing:
        has_term = has_term & ~distilled_mask.any(-1)
        weights = sample_mean_weights(mask)
    else:
        weights = (1 - args.distillation_weight) * _policy_weights(mask, args)
    weights = weights * has_term.unsqueeze(1)
    return {
        "distilled_mask": distilled_mask,
        "policy_weights": weights,
        "loss_mask": (distilled_mask != 0) | (weights != 0),
    }


def sample_mean_weights(mask: Tensor, samples: int | None = None) -> Tensor:
    """Weights of a mean over a sample's tokens, then over the samples, as TRL's distillation's."""
    return mask / mask.sum(-1, keepdim=True).clamp(min=1) / (samples or len(mask))


def _policy_weights(mask: Tensor, args: Any) -> Tensor:
    """TRL's averages of the policy loss by its `loss_type`."""
    if args.loss_type == "grpo":
        return sample_mean_weights(mask)
    if args.loss_type == "dr_grpo":
        return mask / (len(mask) * args.max_completion_length)
    return mask / mask.sum().clamp(min=1)
