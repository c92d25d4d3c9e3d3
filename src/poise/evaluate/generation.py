"""Completions of prompts by transformers' `generate`, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Cache,
    GenerationConfig,
    StoppingCriteriaList,
    StopStringCriteria,
)

from ..reading import CACHE, read_once, repeated


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
    read = read_once(model, ids, mask, whole=sampling.k > 1)
    for first in range(0, sampling.k, most):
        k = min(most, sampling.k - first)
        is_last = first + k == sampling.k
        output = model.generate(
            **_repeated(ids, mask, read, k, keep=not is_last),
            generation_config=_generation_config(sampling, ends, pad),
            stopping_criteria=_stop_criteria(tokenizer, sampling.stop),
        )
        for row, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            completions[row // k].append(_completion(tokens, tokenizer, ends, sampling))
    return completions


def _left_padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side="left")


def _repeated(ids: Tensor, mask: Tensor, read: Cache | None, k: int, keep: bool) -> dict[str, Any]:
    """What `generate` is given for k samples of each prompt; `keep` what was read for more."""
    return {
        "input_ids": ids.repeat_interleave(k, 0),
        "attention_mask": mask.repeat_interleave(k, 0),
        CACHE: None if read is None else repeated(read, k, keep),
    }


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
