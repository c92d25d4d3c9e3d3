"""Questions to a real language model that a study has trained.

Models may have an adapter in them; they are left as they were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poise.evaluate.ask import (
    Sampling,
    ask_questions,
    default_layer,
    places_of,
    prepare,
    represent,
)
from poise.evaluate.records import Header, QuestionRecord, RecordWriter, Representations
from poise.evaluate.scoring import Row, scorer_of
from poise.models import fold_output_head

HEADER = Header(model="", dataset="", split="", sampling={}, seed=0)  # nothing is kept


def ask(
    model: Any, tokenizer: Any, rows: Sequence[Row], sampling: Sampling, seed: int = 0
) -> list[QuestionRecord]:
    """What a model answers, scored.

    Args:
        model: a causal language model.
        tokenizer: its own.
        rows: questions as `data.load` gives them.
        sampling: how answers are drawn.
        seed: of the samples.
    """
    with tempfile.TemporaryDirectory() as folder, _evaluated(model):
        writer = RecordWriter(Path(folder) / "records.jsonl", HEADER)
        questions = prepare(rows, tokenizer)
        ask_questions(model, tokenizer, questions, writer, scorer_of(rows), sampling, seed=seed)
    return list(writer.done.values())


def read(model: Any, tokenizer: Any, rows: Sequence[Row]) -> Representations:
    """What a model holds in mind where it decides the answers of isomers."""
    questions = prepare(rows, tokenizer)
    with _evaluated(model):
        vectors = represent(model, tokenizer, questions, layer=default_layer(model))
    return Representations(HEADER, places_of(questions), vectors)


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    was_training, hook = model.training, fold_output_head(model)
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
        if hook is not None:
            hook.remove()
