"""The slow oracle of the tiled loss: whole tensors of tokens x vocabulary, textbook formulas."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from poise.loss.divergence import Divergence

SMALLEST_TAIL = -math.expm1(-1e-7)  # TRL's bound on the mass of the support, in log space


def plain_kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def plain_divergence(student: Tensor, teacher: Tensor, divergence: Divergence) -> Tensor:
    """D of probabilities [N, V], not for the sampled token."""
    alpha = divergence.alpha
    if divergence.mode == "topk_logits":
        assert divergence.top_k is not None
        support = student.argsort(dim=-1, descending=True)[:, : divergence.top_k]
        student, teacher = student.gather(-1, support), teacher.gather(-1, support)
        if divergence.add_tail:
            student, teacher = _with_tail(student), _with_tail(teacher)
        else:
            student = student / student.sum(-1, keepdim=True)
            teacher = teacher / teacher.sum(-1, keepdim=True)
    if alpha == 0:
        return plain_kl(teacher, student)
    if alpha == 1:
        return plain_kl(student, teacher)
    mixture = (1 - alpha) * student + alpha * teacher
    return (1 - alpha) * plain_kl(student, mixture) + alpha * plain_kl(teacher, mixture)


def _with_tail(p: Tensor) -> Tensor:
    tail = (1 - p.sum(-1, keepdim=True)).clamp(min=SMALLEST_TAIL)
    return torch.cat([p, tail], dim=-1)


def plain_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tokens: Tensor,
    weights: Tensor,
    divergence: Divergence,
    old_logps: Tensor | None = None,
    clip: float | None = None,
) -> dict[str, Tensor]:
    """The fields of `DistillationOutput`, the loss with a graph."""
    student, teacher = student_logits.softmax(-1), teacher_logits.softmax(-1).detach()
    student_logps = student.gather(-1, tokens[:, None])[:, 0].log()
    teacher_logps = teacher.gather(-1, tokens[:, None])[:, 0].log()
    if divergence.mode == "sampled_token":
        per_token = (student_logps - teacher_logps).detach() * student_logps
    else:
        per_token = plain_divergence(student, teacher, divergence)
    if old_logps is not None and clip is not None:
        bounded = (student_logps - old_logps).clamp(-20, 20)
        per_token = per_token * bounded.exp().clamp(max=clip).detach()
    values = {
        "per_token_loss": per_token,
        "student_entropy": -(student * student.log()).sum(-1),
        "teacher_entropy": -(teacher * teacher.log()).sum(-1),
        "kl": plain_kl(student, teacher),
        "student_logps": student_logps,
        "teacher_logps": teacher_logps,
    }
    kept = weights != 0
    values = {name: torch.where(kept, value, 0.0) for name, value in values.items()}
    return values | {"loss": (weights * values["per_token_loss"]).sum()}
