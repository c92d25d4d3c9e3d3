"""What studies of a real language model share: training it by LoRA, and asking it questions.

Models may have an adapter in them; asking leaves them as they were.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poise.evaluate.ask import Sampling, ask_questions, prepare
from poise.evaluate.measures import average
from poise.evaluate.records import Header, QuestionRecord, RecordWriter, Representations
from poise.evaluate.represent import default_layer, places_of, represent
from poise.evaluate.scoring import Row, scorer_of
from poise.models import fold_output_head, resolve_model

HEADER = Header(model="", dataset="", split="", sampling={}, seed=0)  # nothing is kept


def make_trainer(
    trainer_class: Any, config: dict[str, Any], args: Any, rows: Any, **more: Any
) -> Any:
    """A trainer of the run's model, with LoRA on all linear layers, or on `lora_layers`.

    Args:
        trainer_class: `PGPOTrainer` or `IGATrainer`.
        config: the run's settings, `seed`, `model` and `lora_rank` among them.
        args: the trainer's configuration.
        rows: what to train on.
        more: further arguments of the trainer.
    """
    from peft import LoraConfig
    from transformers import set_seed

    from poise.demo.learning import hide_bars, quieten

    hide_bars()
    set_seed(config["seed"])  # of the adapter's factors too
    rank = config["lora_rank"]
    trainer = trainer_class(
        model=resolve_model(config.get("model")),
        args=args,
        train_dataset=rows,
        peft_config=LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=config.get("lora_layers", "all-linear")
        ),
        **more,
    )
    quieten(trainer)
    return trainer


def ask(
    trainer: Any, rows: Sequence[Row], sampling: Sampling, seed: int = 0
) -> list[QuestionRecord]:
    """What a trainer's model answers, scored.

    Args:
        trainer: its model and tokenizer are asked.
        rows: questions as `data.load` gives them.
        sampling: how answers are drawn.
        seed: of the samples.
    """
    model, tokenizer = trainer.model, trainer.processing_class
    with tempfile.TemporaryDirectory() as folder, _evaluated(model):
        writer = RecordWriter(Path(folder) / "records.jsonl", HEADER)
        questions = prepare(rows, tokenizer)
        ask_questions(model, tokenizer, questions, writer, scorer_of(rows), sampling, seed=seed)
    return list(writer.done.values())


def score(records: Sequence[QuestionRecord]) -> dict[str, float]:
    """Accuracy, and the share of samples in which an answer was found."""
    found = [answer is not None for record in records for answer in record.extracted]
    return {
        "accuracy": statistics.fmean(map(average, records)),
        "answered": statistics.fmean(found),
    }


def read(trainer: Any, rows: Sequence[Row]) -> Representations:
    """The hidden states of a trainer's model where it decides the answers of isomers."""
    model, tokenizer = trainer.model, trainer.processing_class
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
