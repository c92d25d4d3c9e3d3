"""Which samples of a micro-batch have which term of the loss, and the part of it that they need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .rollouts import success_threshold


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
