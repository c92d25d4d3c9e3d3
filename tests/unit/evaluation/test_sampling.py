"""Evaluations with a tiny model: reproducible, resumable, clear about bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from poise.evaluation.decoding import Sampling
from poise.evaluation.records import RecordWriter, read_records
from poise.evaluation.sampling import evaluate, prepare, stop_tokens, uniform_draws
from poise.evaluation.scoring import Row, Scored
from tests.tiny import tiny_tokenizer

from .constructed import header

SAMPLING = Sampling(k=4, temperature=1.0, top_p=1.0, max_new_tokens=10)
ROWS = [
    {"id": f"q{i}", "domain": "physics", "level": 1 + i % 2, "prompt": "x" * i + "=", "answer": "e"}
    for i in range(1, 8)
]


def first_vowel(text: str) -> str | None:
    return next((c for c in text if c in "aeiou"), None)


def score(row: Row, text: str) -> Scored:
    found = first_vowel(text)
    return Scored(found, float(found == row["answer"]))


@pytest.fixture(scope="module")
def model(tiny_model_path: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_path).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_path)


def run(model: Any, tokenizer: Any, path: Path, **settings: Any) -> dict[str, Any]:
    rows = settings.pop("rows", ROWS)
    sampling = settings.pop("sampling", SAMPLING)
    questions = prepare(rows, tokenizer)
    writer = RecordWriter(path, header())
    evaluate(model, tokenizer, questions, writer, score, sampling, **settings)
    return {question.id: question for question in read_records(path).questions}


def test_every_question_is_recorded_with_its_samples_and_scores(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    records = run(model, tokenizer, tmp_path / "a.jsonl")
    assert set(records) == {row["id"] for row in ROWS}
    for row in ROWS:
        record = records[row["id"]]
        assert (record.prompt, record.level, record.answer) == (row["prompt"], row["level"], "e")
        assert len(record.completions) == SAMPLING.k
        assert record.extracted == tuple(first_vowel(text) for text in record.completions)
        assert record.rewards == tuple(float(found == "e") for found in record.extracted)
        # A character is a token, and tokens are joined by blanks; special ones are not shown.
        for text, length in zip(record.completions, record.lengths, strict=True):
            assert len(text[::2]) <= length <= SAMPLING.max_new_tokens
        assert all(
            done or length == SAMPLING.max_new_tokens
            for done, length in zip(record.finished, record.lengths, strict=True)
        )
    assert 0 < sum(sum(r.rewards) for r in records.values()) < len(ROWS) * SAMPLING.k


def test_a_seed_decides_the_samples(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    first = run(model, tokenizer, tmp_path / "a.jsonl", seed=1)
    assert run(model, tokenizer, tmp_path / "b.jsonl", seed=1) == first
    assert run(model, tokenizer, tmp_path / "c.jsonl", seed=2) != first


@pytest.mark.parametrize("batch_size", [1, 3, 5, 64])
def test_the_batch_size_does_not_change_the_samples(
    model: Any, tokenizer: Any, tmp_path: Path, batch_size: int
) -> None:
    expected = run(model, tokenizer, tmp_path / "a.jsonl", batch_size=8)
    assert run(model, tokenizer, tmp_path / "b.jsonl", batch_size=batch_size) == expected


def test_questions_keep_their_samples_when_others_join(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    few = run(model, tokenizer, tmp_path / "a.jsonl", rows=ROWS[2:5])
    many = run(model, tokenizer, tmp_path / "b.jsonl")
    assert {id: many[id] for id in few} == few


@pytest.mark.parametrize("lines", [1, 2, 4, 7])
def test_an_interrupted_evaluation_ends_as_if_it_had_not_been(
    model: Any, tokenizer: Any, tmp_path: Path, lines: int
) -> None:
    path = tmp_path / "a.jsonl"
    expected = run(model, tokenizer, path, batch_size=8)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:lines]) + whole[lines][:20])
    assert run(model, tokenizer, path, batch_size=8) == expected
    assert path.read_bytes().splitlines(keepends=True) == whole


def test_a_finished_evaluation_asks_the_model_nothing(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    expected = run(model, tokenizer, tmp_path / "a.jsonl")
    questions = prepare(ROWS, tokenizer)
    writer = RecordWriter(tmp_path / "a.jsonl", header())
    stub = torch.nn.Module()  # has no forward: to call it would fail
    stub.generation_config = model.generation_config
    evaluate(stub, tokenizer, questions, writer, score, SAMPLING)
    assert list(writer.done.values()) == list(expected.values())


def test_records_of_other_questions_are_not_continued(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    run(model, tokenizer, tmp_path / "a.jsonl")
    changed = [dict(row, prompt="y=") for row in ROWS]
    with pytest.raises(ValueError, match=r"'q1' has another prompt.*--overwrite"):
        run(model, tokenizer, tmp_path / "a.jsonl", rows=changed)


def test_greedy_takes_one_sample_a_question(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    greedy = Sampling(k=1, temperature=0.0, max_new_tokens=10)
    one = run(model, tokenizer, tmp_path / "a.jsonl", sampling=greedy, seed=1)
    two = run(model, tokenizer, tmp_path / "b.jsonl", sampling=greedy, seed=2)
    assert one == two
    assert all(len(record.completions) == 1 for record in one.values())


def test_draws_depend_on_seed_and_question_and_more_samples_keep_the_first() -> None:
    draws = uniform_draws(0, "q", SAMPLING)
    assert draws.shape == (4, 10)
    assert bool(((draws >= 0) & (draws < 1)).all())
    assert not torch.equal(draws, uniform_draws(1, "q", SAMPLING))
    assert not torch.equal(draws, uniform_draws(0, "r", SAMPLING))
    more = uniform_draws(0, "q", Sampling(k=9, max_new_tokens=10))
    assert torch.equal(more[:4], draws)


def test_chat_messages_go_through_the_chat_template(tokenizer: Any) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u?"}]
    prepared = prepare([{"id": "q", "prompt": prompt, "answer": "a"}], tokenizer)[0]
    assert prepared.text == "system:s\nuser:u?\na:"
    assert prepared.tokens == tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_dict=False
    )


def test_questions_without_a_name_are_called_by_their_place(tokenizer: Any) -> None:
    rows = [{"prompt": "a=", "answer": "a"}, {"prompt": "b=", "answer": "b"}]
    assert [question.row["id"] for question in prepare(rows, tokenizer)] == ["row-0", "row-1"]


def test_a_completion_ends_at_the_tokens_of_model_and_tokenizer(model: Any) -> None:
    tokenizer = tiny_tokenizer()
    assert stop_tokens(model, tokenizer) == [1]
    tokenizer.eos_token = "."
    assert stop_tokens(model, tokenizer) == sorted([1, tokenizer.convert_tokens_to_ids(".")])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "expected one or more questions"),
        ([ROWS[0], ROWS[0]], "expected each id once, found 'q1' twice"),
        ([dict(ROWS[0], prompt="")], "question 'q1': expected a prompt"),
        ([dict(ROWS[0], prompt="x" * 21)], "its prompt has 21 tokens.*room for 20"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(
    tokenizer: Any, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        prepare(rows, tokenizer, room=20)


def test_chat_messages_without_a_chat_template_are_refused() -> None:
    rows = [dict(ROWS[0], prompt=[{"role": "user", "content": "u"}])]
    with pytest.raises(ValueError, match="no chat template"):
        prepare(rows, tiny_tokenizer(chat=False))


def test_a_batch_of_nothing_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, found 0"):
        run(model, tokenizer, tmp_path / "a.jsonl", batch_size=0)
