"""What models hold in mind where they answer: a hidden state for each isomer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from ..isomers.answers import MARKER, before_answer
from ..rows import text_of
from .ask import Prepared
from .records import (
    Header,
    Place,
    Representations,
    beside,
    read_representations,
    write_representations,
)


def find_kept(
    config: Any,
    questions: Sequence[Prepared],
    header: Header,
    records: Sequence[Path],
    layer: int | None = None,
) -> tuple[Header, Representations | None] | None:
    """The header that representations have, and those that lie beside the records, if any do.

    None, unless all questions are isomers with a reference completion to read a model at.

    `header` is that of the records; `layer` by default `default_layer`.

    Raises:
        RecordError: A file was made with other settings or of other problems.
        ValueError: The model has no such layer.
    """
    if not all(q.row.get("isomer_id") and q.row.get("completion") for q in questions):
        return None
    layers = int(config.num_hidden_layers)
    layer = default_layer(config) if layer is None else layer
    if not 0 <= layer <= layers:
        raise ValueError(
            f"layer: expected 0 (embeddings) to {layers} (the last block), found {layer}"
        )
    how = {"layer": layer, "position": f"last token of {MARKER!r}, reference reasoning"}
    header = replace(header, sampling=how | {"dtype": header.sampling["dtype"]}, seed=0)
    places, found = places_of(questions), None
    for file in filter(Path.is_file, map(beside, records)):
        kept = read_representations(file)
        others = {} if kept.places == places else {"problems": (len(places), "others")}
        header.check_continues(file, kept.header, **others)
        found = found or kept
    return header, found


def read_missing(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Prepared],
    kept: tuple[Header, Representations | None],
    records: Sequence[Path],
    label: str = "reading",
) -> Representations:
    """What `find_kept` has found, else `represent` reads; it is written where it is missing."""
    header, found = kept
    if found is None:
        layer = header.sampling["layer"]
        vectors = represent(model, tokenizer, questions, layer=layer, label=label)
        found = Representations(header, places_of(questions), vectors)
    for file in map(beside, records):
        if not file.is_file():
            write_representations(file, found)
    return found


def places_of(questions: Sequence[Prepared]) -> tuple[Place, ...]:
    """Which problem each row of `represent` belongs to."""
    return tuple(
        Place(r["id"], str(r["isomer_id"]), r.get("domain") or "all", r.get("test"))
        for r in (question.row for question in questions)
    )


def default_layer(model: Any) -> int:
    """Two thirds of the way up a model, or one of this configuration: block 20 of 30.

    Choice: the last layers turn a decision into words, which differ between domains by
    construction, so that the most consistent model would score badly there; the first layers hold
    the words that were read. What a model knows apart from words lies between.

    Source: Wendler et al., Do Llamas Work in English? (2024); Skean et al., Layer by Layer (2025).
    """
    return round(2 * int(getattr(model, "config", model).num_hidden_layers) / 3)


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

    Choice: after the reference completion up to ``Answer:``: all models are read at the same
    place after the same reasoning; their own would mix what they hold with what they wrote.
    Choice: the last token alone. There the answer is decided; a mean over tokens would mostly say
    which words were read.

    Args:
        model: A causal language model in evaluation mode, an adapter in it or not.
        questions: From `prepare`, with ``completion`` in their rows.
        layer: Output of this block, counted from 1, the last one's after the final norm; 0 is the
            embeddings.
        batch_size: Problems at a time; it changes speed and rounding only.
        label: Of the progress bar.

    Raises:
        ValueError: A completion without ``Answer:``, or a text that is longer than the model can
            read.
    """
    rows = [_tokens_to_answer(question, tokenizer, model) for question in questions]
    # The model without its head, whose logits nobody needs.
    backbone = (model.get_base_model() if hasattr(model, "get_base_model") else model).base_model
    # Neighbours in length, so that little is padding.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found = []
    with tqdm(total=len(rows), desc=label, unit="problem", leave=False) as progress:
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            found.append(_last_states(backbone, [rows[i] for i in batch], layer))
            progress.update(len(batch))
    result: NDArray[np.float32] = np.concatenate(found)[np.argsort(order)]
    return result


def _tokens_to_answer(question: Prepared, tokenizer: Any, model: Any) -> Tensor:
    text = question.text + before_answer(text_of(question.row["completion"]))
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


def _last_states(backbone: Any, rows: list[Tensor], layer: int) -> NDArray[np.float32]:
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
