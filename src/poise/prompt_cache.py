"""Prompts read once: what rows of a batch share is put into the cache by one row's forward.

`generate` reads every row of a batch from its first token on, though the samples of a question have
one prompt, and prompts often begin with the same instructions. Tokens are the same as without this,
up to rounding: each row keeps its padding and its positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache, DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerateDecoderOnlyOutput

# What transformers calls it: `cache` from 5.24 on.
CACHE = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
# Choice: fewer tokens that prompts share are not worth a forward of their own.
_ALIKE = 8


def read_once(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    whole: bool = True,
    generate: Callable[..., Any] | None = None,
) -> Cache | None:
    """Keys and values of left-padded prompts; None where the model keeps something else.

    Args:
        model: A causal language model of transformers, or a PEFT model around one.
        ids, mask: (B, T) prompts, and ones on their tokens, zeros on padding.
        whole: Read all but the last token, as pays for several samples a prompt; else only what
            all prompts begin with, where that is long enough.
        generate: The model's own, where another stands in its place.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return None  # it puts tokens of its own before these
    generate = generate or model.generate
    read = _read_beginning(generate, ids, mask)
    if not whole:
        return read
    if not bool(mask[:, :-1].any(1).all()):
        return None  # of a prompt of one token nothing but padding would be read
    return _read(generate, ids[:, :-1], mask[:, :-1], read)


def repeated(cache: Cache, k: int, keep: bool = True) -> Cache:
    """Each row k times; `generate` writes into it, so it is a copy if the cache is to be kept."""
    cache = copy.deepcopy(cache) if keep else cache
    if k > 1:
        cache.batch_repeat_interleave(k)
    return cache


def generate(
    model: Any, own: Callable[..., Any], input_ids: Tensor, attention_mask: Tensor, **options: Any
) -> Any:
    """`model.generate`, given as `own`, for rows of which some are equal: each is read once."""
    cache = _read_rows(model, input_ids, attention_mask, own)
    return own(input_ids=input_ids, attention_mask=attention_mask, **{CACHE: cache}, **options)


def hidden_states(model: Any, backbone: Any, ids: Tensor, mask: Tensor, keep: int) -> Tensor | None:
    """Hidden states that predict the last `keep` tokens, (B, keep, H), without a gradient; what
    stands before them is read once for rows that are equal in it.

    None where no two rows are, or the model keeps something else. Arguments as `read_once`;
    `backbone` is the model without its head.
    """
    cache = _read_rows(model, ids[:, :-keep], mask[:, :-keep], model.generate)
    if cache is None:
        return None
    last = slice(-keep - 1, None)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, last]
    output = backbone(
        input_ids=ids[:, last],
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        **{CACHE: cache},
    )
    states: Tensor = output.last_hidden_state[:, :-1]
    return states


def _read_rows(model: Any, ids: Tensor, mask: Tensor, own: Callable[..., Any]) -> Cache | None:
    """The cache of rows but for their last token, of which equal ones are read once; None where
    all differ."""
    rows = torch.cat([ids, mask], dim=1)
    distinct, places = torch.unique(rows, dim=0, return_inverse=True)
    if len(distinct) == len(rows):
        return None
    ids, mask = distinct.chunk(2, dim=1)
    cache = read_once(model, ids, mask, generate=own)
    if cache is not None:
        cache.batch_select_indices(places)
    return cache


def _read_beginning(generate: Callable[..., Any], ids: Tensor, mask: Tensor) -> Cache | None:
    """The first columns of the prompts, read from one row; each keeps its place behind its padding,
    so that a short one has the less of its beginning in them."""
    if len(ids) == 1:
        return None
    prompts = [row[kept.bool()] for row, kept in zip(ids, mask, strict=True)]
    least = min(len(prompt) for prompt in prompts)
    heads = torch.stack([prompt[:least] for prompt in prompts])
    alike = int((heads == heads[:1]).all(0).long().cumprod(0).sum())
    alike = min(alike, least - 1)  # a prompt's last token is read for its logits
    if alike < _ALIKE:
        return None
    cache = _read(generate, heads[:1, :alike], torch.ones_like(heads[:1, :alike]))
    if cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None  # a window, say, holds a part of it
    pads = [min(ids.size(1) - len(prompt), alike) for prompt in prompts]
    for layer in cache.layers:
        layer.keys, layer.values = _placed(layer.keys, pads), _placed(layer.values, pads)
    return cache


def _placed(states: Tensor, pads: Sequence[int]) -> Tensor:
    """One row's states (1, heads, columns, size) behind each prompt's padding, cut at the end."""
    columns = states.shape[2]
    return torch.cat([functional.pad(states[:, :, : columns - p], (0, 0, p, 0)) for p in pads])


def _read(
    generate: Callable[..., Any], ids: Tensor, mask: Tensor, read: Cache | None = None
) -> Cache | None:
    """The cache after these tokens, of which `read` holds the first columns; None where it is of
    another kind than one state a token."""
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=1,
        pad_token_id=0,
        return_dict_in_generate=True,
        disable_compile=True,  # lengths differ from batch to batch, so that it would not pay
    )
    output = generate(input_ids=ids, attention_mask=mask, generation_config=config, **{CACHE: read})
    cache = getattr(output, CACHE, None)
    # A model may pass over the cache, as layers do that are checkpointed.
    if cache is None or type(cache) is not DynamicCache:
        return None
    return cache if cache.get_seq_length() == ids.size(1) else None
