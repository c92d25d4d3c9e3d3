"""Completions of prompts by transformers' `generate`, and how they are drawn."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.cache_utils import DynamicLayer

# Choice: fewer tokens that prompts share are not worth a forward of their own.
_ALIKE = 8


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Choice: the defaults of k, temperature and top_p are those of the paper's validation.

    Args:
        k: Samples per question.
        temperature: 0 is greedy.
        top_p: Least mass of the likeliest tokens to draw from.
        max_new_tokens: Longest completion in tokens.
        stop: Texts that end a completion; it is cut before the first of them.

    Raises:
        ValueError: a value outside its range, or several samples where all would be equal.
    """

    k: int = 16
    temperature: float = 0.6
    top_p: float = 0.95
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("k", "max_new_tokens"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, found {value!r}")
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: expected 0 or more, found {self.temperature!r}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p: expected a value in (0, 1], found {self.top_p!r}")
        if not all(self.stop):
            raise ValueError(f"stop: expected texts that are not empty, found {self.stop!r}")
        if self.temperature == 0.0 and self.k > 1:
            raise ValueError(
                f"temperature 0 is greedy, so all {self.k} samples would be equal; "
                "use k = 1, or a temperature above 0"
            )


@dataclass(frozen=True)
class Completion:
    """Sampled text, its tokens without the one that ended it, and whether it ended by itself."""

    text: str
    length: int
    finished: bool


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a completion: the generation config's and the tokenizer's end of sequence."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({i for i in [*ids, tokenizer.eos_token_id] if i is not None})


def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    most_rows: int | None = None,
) -> list[list[Completion]]:
    """Completions of a batch of prompts, k each.

    Args:
        model: A causal language model in evaluation mode. What its generation config says of
            sampling holds where `sampling` is silent; `loading.load` leaves nothing of that in it.
        tokenizer: Its tokenizer.
        prompts: Token ids of each prompt.
        sampling: How to draw.
        most_rows: Most samples of one prompt in flight at a time, None for all k.
    """
    ends = stop_tokens(model, tokenizer)
    # Ended rows are filled with an end, so that the first one is where a completion ends.
    pad = ends[0] if ends else 0
    ids = _left_padded(prompts, pad).to(model.device)
    mask = _left_padded([[1] * len(prompt) for prompt in prompts], 0).to(model.device)
    completions: list[list[Completion]] = [[] for _ in prompts]
    most = min(most_rows or sampling.k, sampling.k)
    read = _read_beginning(model, prompts, ids.shape[1], pad)
    if sampling.k > 1:
        read = _read_once(model, ids, mask, pad, read)
    for first in range(0, sampling.k, most):
        k = min(most, sampling.k - first)
        output = model.generate(
            **_repeated(ids, mask, read, k),
            generation_config=_generation_config(sampling, ends, pad),
            stopping_criteria=_stop_criteria(tokenizer, sampling.stop),
        )
        for row, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            completions[row // k].append(_completion(tokens, tokenizer, ends, sampling))
    return completions


def _left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side="left")


def _read_beginning(
    model: Any, prompts: Sequence[Sequence[int]], width: int, pad: int
) -> Cache | None:
    """Keys and values of the first columns of the padded prompts, read once for all, where the
    prompts begin alike; None where they do not, or the model keeps something else.

    Each prompt keeps its place behind its padding, as without this. So a prompt that is shorter
    than the longest has the less of its beginning in these columns.
    """
    least = min(len(prompt) for prompt in prompts)
    pairs = zip(*prompts, strict=False)
    alike = next((i for i, tokens in enumerate(pairs) if len(set(tokens)) > 1), least)
    alike = min(alike, least - 1)  # a prompt's last token is read for its logits
    if alike < _ALIKE or len(prompts) == 1:
        return None
    ids = torch.tensor([prompts[0][:alike]], device=model.device)
    cache = _read(model, ids, torch.ones_like(ids), pad)
    if cache is None or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None  # a window, say, holds a part of it
    for layer in cache.layers:
        layer.keys = _placed(layer.keys, prompts, width)
        layer.values = _placed(layer.values, prompts, width)
    return cache


def _placed(states: Tensor, prompts: Sequence[Sequence[int]], width: int) -> Tensor:
    """One row's states (1, heads, columns, size) behind each prompt's padding, cut at the end."""
    columns = states.shape[2]
    pads = [min(width - len(prompt), columns) for prompt in prompts]
    rows = [functional.pad(states[:, :, : columns - gap], (0, 0, gap, 0)) for gap in pads]
    return torch.cat(rows)


def _read_once(model: Any, ids: Tensor, mask: Tensor, pad: int, read: Cache | None) -> Cache | None:
    """Keys and values of the prompts but for their last token, so that the samples of a prompt
    need not read it k times; None where the model keeps something else or a prompt is too short."""
    if not bool(mask[:, :-1].any(1).all()):
        return None  # nothing but padding would be read
    return _read(model, ids[:, :-1], mask[:, :-1], pad, read)


def _read(
    model: Any, ids: Tensor, mask: Tensor, pad: int, read: Cache | None = None
) -> Cache | None:
    """The cache after these tokens, of which `read` may hold the first columns; None where it is of
    another kind than one state a token, or an adapter puts tokens of its own before these."""
    adapter = getattr(model, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False):
        return None
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=read,
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=1,
            pad_token_id=pad,
            return_dict_in_generate=True,
            disable_compile=True,
        ),
    )
    cache = getattr(output, "past_key_values", None)
    return cache if type(cache) is DynamicCache else None


def _repeated(ids: Tensor, mask: Tensor, read: Cache | None, k: int) -> dict[str, Any]:
    """What `generate` is given for k samples of each prompt."""
    inputs: dict[str, Any] = {
        "input_ids": ids.repeat_interleave(k, 0),
        "attention_mask": mask.repeat_interleave(k, 0),
    }
    if read is not None:
        # `generate` writes into the cache that it is given.
        inputs["past_key_values"] = copy.deepcopy(read)
        inputs["past_key_values"].batch_repeat_interleave(k)
    return inputs


def _generation_config(sampling: Sampling, ends: list[int], pad: int) -> GenerationConfig:
    greedy = sampling.temperature == 0.0
    draw = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
    return GenerationConfig(
        do_sample=not greedy,
        **draw,
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad,
        disable_compile=True,  # lengths differ from batch to batch, so that it would not pay
    )


@lru_cache(maxsize=1)
def _stop_criteria(tokenizer: Any, stop: tuple[str, ...]) -> StoppingCriteriaList:
    """What `stop_strings` makes of the vocabulary anew in each call of `generate`."""
    return StoppingCriteriaList([StopStringCriteria(tokenizer, list(stop))] if stop else [])


def _completion(
    tokens: list[int], tokenizer: Any, ends: Sequence[int], sampling: Sampling
) -> Completion:
    length = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
    cuts = [place for stop in sampling.stop if (place := text.find(stop)) >= 0]
    finished = bool(cuts) or length < sampling.max_new_tokens
    return Completion(text[: min(cuts)] if cuts else text, length, finished)
