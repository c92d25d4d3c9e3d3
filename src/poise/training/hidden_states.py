"""Splits a causal language model into the part that makes hidden states and the output head."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn


class OutputHead(nn.Module):
    """From hidden states (n, H) to logits (n, V), with what the model does to its logits.

    Args:
        projection: the model's output embeddings, PEFT layers included.
        softcap: c of `c * tanh(logits / c)`, or None.
        scale: factor on the logits, before the soft cap.
    """

    def __init__(self, projection: nn.Module, softcap: float | None, scale: float) -> None:
        super().__init__()
        self.projection = projection
        self.softcap = softcap
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.projection(hidden)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    @property
    def has_adapter(self) -> bool:
        """Whether which adapter is active changes the head."""
        return isinstance(self.projection, (BaseTunerLayer, AuxiliaryTrainingWrapper))


class Purpose(NamedTuple):
    """What a model is split for, and what a user may do where that cannot be."""

    name: str
    remedy: str


TILED_LOSS = Purpose("the tiled loss", "set tiled_loss=False")


@dataclass
class SplitModel:
    """A causal language model as two callables. `model` is what was split, unwrapped."""

    model: nn.Module
    backbone: nn.Module
    head: OutputHead
    purpose: Purpose = TILED_LOSS

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, keep: int) -> Tensor:
        """Hidden states that predict the last `keep` tokens: (B, T) ids -> (B, keep, H)."""
        output = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return output[:, -keep - 1 : -1]


def split_causal_lm(model: nn.Module, purpose: Purpose = TILED_LOSS) -> SplitModel:
    """Finds backbone and head of a transformers model, with or without a PEFT adapter.

    Args:
        model: a causal language model.
        purpose: what errors say.

    Raises:
        ValueError: the model has no separable head, or an adapter that changes its inputs.
    """
    causal: Any = model
    if isinstance(model, PeftModel):
        if model.active_peft_config.is_prompt_learning:
            raise ValueError(
                f"{purpose.name} cannot run with {model.active_peft_config.peft_type} adapters, "
                f"which change the inputs; {purpose.remedy}"
            )
        causal = model.get_base_model()
    projection = causal.get_output_embeddings()
    backbone = causal.base_model
    if projection is None or backbone is causal:
        raise ValueError(
            f"{type(causal).__name__} has no output head apart from its backbone, which "
            f"{purpose.name} needs; {purpose.remedy}"
        )
    config = causal.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere's factor
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite's divisor
    softcap = getattr(config, "final_logit_softcapping", None)
    return SplitModel(model, backbone, OutputHead(projection, softcap, scale), purpose)


@torch.no_grad()
def verify_split(
    split: SplitModel, input_ids: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Compares the split's logits with the model's own on a few tokens.

    A model may do something to its logits that `split_causal_lm` does not know. Then the loss would
    be quietly wrong, so it is refused.

    Args:
        input_ids: (1, T) real tokens.
        autocast: the context that the training forward runs in.

    Raises:
        ValueError: the logits differ by more than rounding.
    """
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    inside: list[Tensor] = []  # the hidden states of the model's own forward, then of ours
    hook = split.backbone.register_forward_hook(
        lambda _module, _args, output: inside.append(output.last_hidden_state)
    )
    was_training = split.model.training
    split.model.eval()  # dropout would differ between the two, and draw random numbers
    try:
        with autocast():
            own = split.model(**inputs, use_cache=False).logits
            split.backbone(**inputs, use_cache=False)
            heads = split.head(inside[0])
            ours = split.head(inside[-1])
    finally:
        hook.remove()
        split.model.train(was_training)
    # On the same hidden states the head repeats the model's operations, so that the bound is tight:
    # in bfloat16 a looser one would let a soft cap pass. Two runs of the backbone may differ by
    # the order in which a kernel sums.
    _refuse_difference(split, own, heads, 2)
    _refuse_difference(split, own, ours, 32)


def _refuse_difference(split: SplitModel, own: Tensor, ours: Tensor, roundings: int) -> None:
    wide = torch.promote_types(ours.dtype, torch.float32)
    difference = (own.to(wide) - ours.to(wide)).abs().max().item()
    tolerance = roundings * torch.finfo(ours.dtype).eps * own.abs().max().item()
    if difference > tolerance:
        raise ValueError(
            f"{split.purpose.name} does not reproduce the logits of {type(split.model).__name__} "
            f"(they differ by {difference:.2g}, rounding allows {tolerance:.2g}); "
            f"{split.purpose.remedy}"
        )
