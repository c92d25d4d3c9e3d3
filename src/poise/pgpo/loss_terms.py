"""Which samples of a micro-batch have which term of the loss, and the part of it that they need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .reward_functions import success_threshold


def needed_part(inputs: dict[str, Tensor], args: Any) -> dict[str, Tensor]:
    """The micro-batch with the terms of its loss, without samples and columns that have none.

    Leaves out samples without a term and columns that are padding throughout; of the teacher's
    prompts, those of samples that are not distilled. All cost a forward and change no loss. One
    sample stays if none has a term, so that every rank has a backward.

    Args:
        inputs: TRL's micro-batch of B samples and T tokens of completion.
        args: a `PGPOConfig`.

    Returns:
        The batch, and in it, (B', T') each: `distilled_mask`; `policy_weights`, what a token's
        policy term weighs, where there is such a term; `loss_mask`, the tokens that have any.
        `teacher_rows` are the places of the teacher's prompts in the batch, where it has fewer.
    """
    terms = _terms(inputs, args)
    rows = terms["loss_mask"].any(-1)
    first = torch.arange(len(rows), device=rows.device) == 0
    rows = rows | (first & ~rows.any())
    taught = terms["distilled_mask"].any(-1)
    taught = taught | (rows & (rows.cumsum(0) == 1) & ~taught.any())
    masks = {"completion_mask": rows, "prompt_mask": rows, "teacher_attention_mask": taught}
    used = [(inputs[name].bool() & own.unsqueeze(1)).any(0) for name, own in masks.items()]
    places = [used[0].sum(), *(columns.int().argmax() for columns in used[1:])]
    # One copy to the host, whatever the samples and columns.
    flags = torch.cat([rows.long(), taught.long(), torch.stack(places)]).tolist()
    *flags, end, prompt, teacher = flags
    kept, shown = (
        [i for i, flag in enumerate(part) if flag]
        for part in (flags[: len(rows)], flags[len(rows) :])
    )
    index = {
        name: torch.tensor(places, device=rows.device)
        for name, places in (("teacher", shown), ("", kept))
    }
    batch = {
        k: v[index["teacher" if k in _TEACHER else ""]]
        for k, v in (inputs | terms).items()
        if isinstance(v, Tensor) and v.ndim > 0
    }
    if shown != kept:
        batch["teacher_rows"] = torch.tensor([kept.index(i) for i in shown], device=rows.device)
    cut = inputs["completion_ids"].size(1) - max(1, end)
    _trim(batch, 0, cut, ("completion_ids", "completion_mask", "old_per_token_logps", *terms))
    _trim(batch, prompt, 0, ("prompt_ids", "prompt_mask"))
    _trim(batch, teacher, cut, _TEACHER)
    return batch


_TEACHER = ("teacher_input_ids", "teacher_attention_mask")


def in_all_rows(hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The teacher's hidden states at their places in the batch; zeros, never read, elsewhere."""
    if "teacher_rows" not in batch:
        return hidden
    zeros = hidden.new_zeros(len(batch["completion_ids"]), *hidden.shape[1:])
    return zeros.index_copy(0, batch["teacher_rows"], hidden)


def _terms(inputs: dict[str, Tensor], args: Any) -> dict[str, Tensor]:
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


def _trim(batch: dict[str, Tensor], left: int, right: int, names: tuple[str, ...]) -> None:
    """Cuts columns off at both ends."""
    for name in names:
        if name in batch:
            batch[name] = batch[name][:, left : batch[name].size(1) - right]
