"""Rows on their way into an IGA trainer: training, evaluation, looking at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from poise import IGATrainer
from tests.tiny import tiny_isomers, tiny_tokenizer


def test_a_tokenizer_that_appends_an_end_teaches_one(make: Callable[..., IGATrainer]) -> None:
    appending = tiny_tokenizer()
    appending.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    rows = tiny_isomers(4).select_columns(["prompt", "completion"])
    found, expected = (
        make(arguments={"processing_class": tokenizer, "eval_dataset": rows})
        for tokenizer in (appending, tiny_tokenizer())
    )
    assert found.train_dataset[:] == expected.train_dataset[:]
    assert found.eval_dataset["labels"] == expected.eval_dataset["labels"]
    assert list(found.train_dataset[0][0]["labels"]).count(1) == 1


@pytest.mark.parametrize("extra", [("isomer_id", "domain"), ()])
def test_evaluation_takes_rows_with_and_without_sets_also_by_the_name_train(
    extra: tuple[str, ...], make: Callable[..., IGATrainer]
) -> None:
    rows = tiny_isomers(3).select_columns(["prompt", "completion", *extra])
    trainer = make(arguments={"eval_dataset": {"train": rows, "held out": rows}})
    figures = trainer.evaluate()
    assert figures["eval_train_loss"] == figures["eval_held out_loss"] > 0
    assert trainer.evaluate(rows)["eval_loss"] == figures["eval_train_loss"]
    tokenised = trainer.train_dataset.rows
    assert trainer.evaluate(tokenised)["eval_loss"] > 0
    assert set(next(iter(trainer.get_train_dataloader()))["domain"].tolist()) == {0, 1, 2}


def test_conversations_are_trained_and_evaluated_on(make: Callable[..., IGATrainer]) -> None:
    def talk(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }

    rows = Dataset.from_list([row | talk(row) for row in tiny_isomers(4).to_list()])
    trainer = make(rows, {"eval_dataset": rows})
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.evaluate()["eval_loss"] > 0


def test_evaluation_rows_of_which_nothing_is_left_are_an_error(
    make: Callable[..., IGATrainer],
) -> None:
    rows = tiny_isomers(3)
    long = rows.map(lambda row: {"prompt": 64 * "a"}, remove_columns=["isomer_id", "domain"])
    with pytest.raises(ValueError, match="eval data: no row has a completion within max_length=48"):
        make(rows, {"eval_dataset": long}, max_length=48)
    both = {"short": rows, "long": long}
    with pytest.raises(ValueError, match="long data: no row has a completion within max_length=48"):
        make(rows, {"eval_dataset": both}, max_length=48)
