"""Splits a causal language model into the part that makes hidden states and the output head."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from ..sharding import gather, past_hooks, read_inside


class OutputHead(nn.Module):
    """From hidden states (n, H) to logits (n, V): the model's output embeddings, PEFT layers
    included, times a scale; with a soft cap c of them, `c * tanh(logits / c)`."""

    def __init__(self, projection: nn.Module, softcap: float | None, scale: float) -> None:
        super().__init__()
        self.projection, self.softcap, self.scale = projection, softcap, scale

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = past_hooks(self.projection)(hidden)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    @property
    def has_adapter(self) -> bool:
        """Whether which adapter is active changes the head."""
        return isinstance(self.projection, (BaseTunerLayer, AuxiliaryTrainingWrapper))


@dataclass
class SplitModel:
    """A causal language model as a backbone, from ids to hidden states, and an output head."""

    model: nn.Module  # what was split, unwrapped
    backbone: nn.Module
    head: OutputHead
    user: str  # who reads the parts, for errors
    remedy: str  # what to do without it

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor, keep: int) -> Tensor:
        """Hidden states that predict the last `keep` tokens: (B, T) ids -> (B, keep, H).

        Each row's positions start at its first token, not at the padding before it. Of a sharded
        model, inside its forward; the head is gathered for what follows.
        """
        positions = {}
        if "position_ids" in inspect.signature(self.backbone.forward).parameters:
            positions["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        output = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **positions
        ).last_hidden_state
        gather(self.model, self.head.projection)
        return output[:, -keep - 1 : -1]


def split_causal_lm(
    model: nn.Module, user: str = "the tiled loss", remedy: str = "set tiled_loss=False"
) -> SplitModel:
    """Finds backbone and head of a transformers model, with or without a PEFT adapter.

    Errors name `user`, who reads the parts, and end with `remedy`, what to do without.

    Raises:
        ValueError: the model has no separable head, reads its input by an encoder, or has an
            adapter that changes its inputs.
    """
    causal: Any = model
    if isinstance(model, PeftModel):
        if model.active_peft_config.is_prompt_learning:
            raise ValueError(
                f"{user} cannot run with {model.active_peft_config.peft_type} adapters, "
                f"which change the inputs; {remedy}"
            )
        causal = model.get_base_model()
    if causal.config.is_encoder_decoder:
        raise ValueError(
            f"{type(causal).__name__} is an encoder with a decoder; {user} needs a causal "
            "language model, whose answer goes on where the prompt ends"
        )
    projection = causal.get_output_embeddings()
    backbone = causal.base_model
    if projection is None or backbone is causal:
        raise ValueError(
            f"{type(causal).__name__} has no output head apart from its backbone, which "
            f"{user} needs; {remedy}"
        )
    config = causal.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere's factor
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite's divisor
    softcap = getattr(config, "final_logit_softcapping", None)
    return SplitModel(model, backbone, OutputHead(projection, softcap, scale), user, remedy)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: dropout would change what is compared, and draw random numbers."""
    training = [module for module in model.modules() if module.training]  # a user may hold a part
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def verify_split(
    split: SplitModel, input_ids: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Compares the split's logits with the model's own on (1, T) real tokens, since a model may do
    something to its logits that `split_causal_lm` does not know.

    Raises:
        ValueError: the logits differ by more than rounding.
    """
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
    inside: list[Tensor] = []  # the hidden states of the model's own forward, then of ours

    def parts() -> tuple[Tensor, Tensor]:
        split.backbone(**inputs, use_cache=False)
        gather(split.model, split.head.projection)
        return split.head(inside[0]), split.head(inside[-1])

    hook = split.backbone.register_forward_hook(
        lambda _module, _args, output: inside.append(output.last_hidden_state)
    )
    try:
        with evaluating(split.model), autocast():
            own = split.model(**inputs, use_cache=False).logits
            heads, ours = read_inside(split.model, parts)
    finally:
        hook.remove()
    # On the same hidden states the head repeats the model's operations, so that the bound is tight:
    # in bfloat16 a looser one would let a soft cap pass. Two runs of the backbone may differ by
    # the order in which a kernel sums.
    for found, roundings in ((heads, 2), (ours, 32)):
        wide = torch.promote_types(found.dtype, torch.float32)
        difference = (own.to(wide) - found.to(wide)).abs().max().item()
        tolerance = roundings * torch.finfo(found.dtype).eps * own.abs().max().item()
        if difference > tolerance:
            raise ValueError(
                f"{split.user} does not reproduce the logits of {type(split.model).__name__} "
                f"(they differ by {difference:.2g}, rounding allows {tolerance:.2g}); "
                f"{split.remedy}"
            )


_PADDING = 16  # tokens before a row


def padding_shifts(forward: Callable[[Tensor, Tensor], Tensor], input_ids: Tensor) -> bool:
    """Whether padding before a row of real tokens (1, T) changes what `forward` makes of them:
    from ids and attention mask to one value or more for each token (1, T, n).

    Choice: rounding is of the order of eps, bfloat16's at most (also inside a model whose outputs
    are float32), and a shifted position of order one; the bound on the relative difference is
    their geometric mean. The median over tokens, since rounding may send one to another expert.
    """
    mask = torch.ones_like(input_ids)
    padding = mask.new_zeros(1, _PADDING)
    alone = forward(input_ids, mask).float()
    padded = forward(torch.cat([padding, input_ids], 1), torch.cat([padding, mask], 1)).float()
    difference = (padded[:, _PADDING:] - alone).norm(dim=-1) / alone.norm(dim=-1)
    return difference.median().item() > torch.finfo(torch.bfloat16).eps ** 0.5


@torch.no_grad()
def verify_padding(
    split: SplitModel, input_ids: Tensor, autocast: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Checks that padding before a row of real tokens (1, T) does not change its hidden states.

    Raises:
        ValueError: it does, as in models that pass over the attention mask.
    """

    def states(ids: Tensor, mask: Tensor) -> Tensor:
        following = torch.zeros_like(ids[:, :1])  # predicted by the last token, never read
        mask = torch.cat([mask, torch.ones_like(following)], 1)
        return split.hidden_states(torch.cat([ids, following], 1), mask, ids.size(1))

    with evaluating(split.model), autocast():
        shifts = read_inside(split.model, partial(padding_shifts, states, input_ids))
    if shifts:
        raise ValueError(
            f"{type(split.model).__name__} reads the padding before a shorter prompt as part of "
            f"it, so that {split.user} would score it wrongly; use another model"
        )
