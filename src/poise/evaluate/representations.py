"""What a model holds in mind where it decides an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ..isomers.answers import MARKER, before_answer
from .representation_file import Place
from .sampling import Prepared


def has_reference(questions: Sequence[Prepared]) -> bool:
    """Whether all are isomers with a reference completion to read the model at."""
    return all(q.row.get("isomer_id") and q.row.get("completion") for q in questions)


def places_of(questions: Sequence[Prepared]) -> tuple[Place, ...]:
    """Which problem each row of `represent` belongs to."""
    rows = (q.row for q in questions)
    return tuple(
        Place(r["id"], str(r["isomer_id"]), r.get("domain") or "all", r.get("test")) for r in rows
    )


def default_layer(model: Any) -> int:
    """Two thirds of the way up: block 20 of 30.

    Choice: the last layers turn a decision into words, and the right word differs between domains
    by construction, so that the most consistent model would score badly there; the first layers
    hold the words that were read. What a model knows apart from the words in which it was told
    lies between, above the middle.

    Source: Wendler et al., Do Llamas Work in English? (2024); Skean et al., Layer by Layer (2025).
    """
    return round(2 * int(model.config.num_hidden_layers) / 3)


def settings_of(model: Any, layer: int | None) -> dict[str, Any]:
    """What shapes representations, for their header.

    Raises:
        ValueError: the model has no such layer.
    """
    layers = int(model.config.num_hidden_layers)
    chosen = default_layer(model) if layer is None else layer
    if not 0 <= chosen <= layers:
        raise ValueError(
            f"layer: expected 0 (embeddings) to {layers} (the last block), found {chosen}"
        )
    return {"layer": chosen, "position": f"last token of {MARKER!r}, reference reasoning"}


@torch.inference_mode()
def represent(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Prepared],
    *,
    layer: int,
    batch_size: int = 8,
    label: str = "reading",
) -> NDArray[np.float32]:
    """Hidden state at the end of ``Answer:``, one a problem, shape (problems, width).

    Choice: the model reads the prompt and the reference completion up to and including
    ``Answer:``, so that every model is read at the same place after the same reasoning; after its
    own, the score would mix what it holds with what it happened to write.
    Choice: the last token alone, without pooling. There the answer is decided and nowhere else,
    and a mean over tokens would mostly say which words were read.

    Args:
        model: A causal language model in evaluation mode, an adapter in it or not.
        tokenizer: Its tokenizer.
        questions: From `prepare`, with a row that holds ``completion``.
        layer: Output of this block, counted from 1; 0 is the embeddings. Of the last block it is
            what the head reads, after the final norm.
        batch_size: Problems at a time; it changes speed and rounding only.
        label: What the progress bar says.

    Raises:
        ValueError: a completion without ``Answer:``, a text that is longer than the model can
            read, or a batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, found {batch_size}")
    rows = [_tokens(question, tokenizer, model) for question in questions]
    # Neighbours in length, so that little is padding.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, NDArray[np.float32]] = {}
    backbone = _backbone(model)
    with tqdm(total=len(rows), desc=label, unit="problem", leave=False) as progress:
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            states = _last_states(backbone, [rows[i] for i in batch], layer)
            found |= dict(zip(batch, states, strict=True))
            progress.update(len(batch))
    return np.stack([found[i] for i in range(len(rows))])


def _tokens(question: Prepared, tokenizer: Any, model: Any) -> torch.Tensor:
    text = question.text + before_answer(question.row["completion"])
    # What the template has rendered holds its special tokens already.
    special = isinstance(question.row["prompt"], str)
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and len(ids) > longest:
        raise ValueError(
            f"question {question.row['id']!r}: prompt and reference have {len(ids)} tokens, and "
            f"the model reads at most {longest}"
        )
    return torch.tensor(ids)


def _backbone(model: Any) -> Any:
    """The model without its head, whose logits nobody needs."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def _last_states(backbone: Any, rows: list[torch.Tensor], layer: int) -> NDArray[np.float32]:
    # Padding follows the text, so that it moves no position and no token looks at it.
    ids = pad_sequence(rows, batch_first=True).to(backbone.device)
    ends = torch.tensor([len(row) for row in rows], device=ids.device)
    mask = (torch.arange(ids.shape[1], device=ids.device) < ends[:, None]).long()
    states = backbone(
        input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False
    ).hidden_states[layer]
    last = states[torch.arange(len(rows), device=ids.device), ends - 1]
    result: NDArray[np.float32] = last.float().cpu().numpy()
    return result
