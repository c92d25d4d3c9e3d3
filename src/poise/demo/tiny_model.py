"""A tiny language model over whole-word tokens, trained from scratch and kept in the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..models import cache_root

PAD, END = "<pad>", "<eos>"
IGNORED = -100
LEARNING_RATE, WARMUP = 2e-3, 50
ASK = 5  # steps between two questions whether a model is ready
# A rectangle of token ids, and the same with IGNORED where no loss is wanted.
Batch = tuple[Tensor, Tensor]


def make_tokenizer(words: Sequence[str]) -> Any:
    """A tokenizer with one token a word; words are separated by spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate([PAD, END, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, padding_side="left"
    )


def encode(tokenizer: Any, texts: Sequence[tuple[str, str]]) -> Batch:
    """Pairs of prompt and completion as a batch with a loss on the completion and its end."""
    rows = [
        (tokenizer(prompt).input_ids, [*tokenizer(end).input_ids, tokenizer.eos_token_id])
        for prompt, end in texts
    ]
    ids = [torch.tensor(prompt + end) for prompt, end in rows]
    labels = [torch.tensor([IGNORED] * len(prompt) + end) for prompt, end in rows]
    return pad_sequence(ids, True, tokenizer.pad_token_id), pad_sequence(labels, True, IGNORED)


def pretrained(
    name: str,
    tokenizer: Any,
    draw: Callable[[int], Batch],
    steps: int,
    seed: int,
    is_ready: Callable[[Any], bool] | None = None,
    learning_rate: float = LEARNING_RATE,
    **config: Any,
) -> str:
    """Folder of a model trained from scratch; it is trained once and kept in the cache.

    Args:
        name: of the toy task.
        tokenizer: its vocabulary is the model's.
        draw: step -> batch; a function or method of the toy task's own module, whose source
            belongs to what the folder is found by.
        steps: optimizer steps at most.
        seed: of the weights.
        is_ready: is asked every few steps whether the model knows enough.
        learning_rate: after the warm-up.
        config: `LlamaConfig`'s.
    """
    task = inspect.getmodule(draw)
    assert task is not None
    sources = [inspect.getsource(module) for module in (task, sys.modules[__name__])]
    said = json.dumps([*sources, steps, learning_rate, config, torch.__version__], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:10]
    folder = cache_root() / f"lab-{name}-{digest}-{seed}"
    if folder.is_dir():
        return str(folder)
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            **config,
        )
    )
    _train(model, draw, steps, is_ready, learning_rate)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under its name only when it is whole; another process may have been quicker.
    with tempfile.TemporaryDirectory(dir=folder.parent) as parts:
        for part in (model, tokenizer):
            part.save_pretrained(Path(parts) / "whole")
        try:
            Path(parts, "whole").rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return str(folder)


def _train(
    model: Any,
    draw: Callable[[int], Batch],
    steps: int,
    is_ready: Callable[[Any], bool] | None,
    learning_rate: float,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    model.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (step + 1) / WARMUP)
        ids, labels = draw(step)
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if is_ready is not None and (step + 1) % ASK == 0 and is_ready(model):
            break
    model.eval()


@torch.no_grad()
def accuracy(model: Any, batch: Batch) -> float:
    """Share of rows that greedy decoding gets right: every token with a loss is the likeliest."""
    ids, labels = batch
    chosen = model(input_ids=ids).logits[:, :-1].argmax(-1)
    targets = labels[:, 1:]
    return float(((chosen == targets) | (targets == IGNORED)).all(1).double().mean())
