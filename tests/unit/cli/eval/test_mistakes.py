"""Each mistake with `poise eval` is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.conftest import letter_model, letter_tokenizer, save_letter_adapter

from .conftest import Call, ask


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "no/such/model/here"], "Expected a model"),
        (["--adapter", "nowhere"], "expected a folder with adapter_config.json at nowhere"),
        (["--dataset_name", "none.jsonl"], "none.jsonl"),
        (["--k", "0"], "k: expected a whole number"),
        (["--temperature", "-1"], "temperature: expected 0 or more"),
        (["--top_p", "2"], "top_p: expected"),
        (["--stop", ""], "stop: expected texts that are not empty"),
        (["--limit", "0"], "limit: expected 1 or more"),
        (["--batch_size", "0"], "batch_size: expected 1 or more"),
        (["--dtype", "int4"], "dtype: expected one of"),
        (["--max_new_tokens", "512"], "lower max_new_tokens"),
        (["--tempratur", "1"], "did you mean --temperature?"),
    ],
)
def test_a_mistake_is_one_line(
    call: Call, letters_path: str, questions_path: Path, words: list[str], complaint: str
) -> None:
    status, out, err = call("--model", letters_path, "--dataset_name", questions_path, *words)
    assert status == 2 and out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("poise eval: ") and complaint in last


@pytest.mark.parametrize("other", ["no-such-model", "org/no-such-model"])
def test_a_compared_model_that_is_not_there_is_found_out_before_any_is_asked(
    call: Call, letters_path: str, questions_path: Path, tmp_path: Path, other: str
) -> None:
    folder = tmp_path / "records"
    words = ("--model", letters_path, "--dataset_name", questions_path, "--compare", other)
    status, _, err = call(*words, "--output_dir", folder)
    assert status == 2 and other in err.strip().splitlines()[-1]
    assert not folder.exists()


def test_adapters_of_different_models_need_the_model_named(
    call: Call, letters_path: str, questions_path: Path, run_path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other_base"
    letter_model(seed=3).save_pretrained(other)
    letter_tokenizer().save_pretrained(other)
    second = save_letter_adapter(tmp_path / "second", str(other))
    words = ("--compare", run_path, second, "--dataset_name", questions_path)
    status, _, err = call(*words)
    assert status == 2 and "different models" in err and "--model" in err
    assert len(ask(call, *words, "--model", letters_path)["evaluations"]) == 3


def test_questions_without_answers_are_refused(
    call: Call, letters_path: str, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "Question: A"}\n')
    status, _, err = call("--model", letters_path, "--dataset_name", tmp_path / "x.jsonl")
    assert status == 2 and "row 0: expected the right letter" in err
