"""Evaluations with a tiny model: reproducible, resumable, clear about bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from poise.evaluate.ask import Sampling
from poise.evaluate.records import RecordWriter, read_records
from poise.evaluate.ask import evaluate, prepare
from poise.evaluate.scoring import Row, Scored
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


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_any_batch_size_answers_every_question(
    model: Any, tokenizer: Any, tmp_path: Path, batch_size: int
) -> None:
    records = run(model, tokenizer, tmp_path / "a.jsonl", batch_size=batch_size)
    assert [len(records[row["id"]].completions) for row in ROWS] == [SAMPLING.k] * len(ROWS)


def test_the_order_of_the_questions_does_not_matter(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    expected = run(model, tokenizer, tmp_path / "a.jsonl", batch_size=8)
    assert run(model, tokenizer, tmp_path / "b.jsonl", batch_size=8, rows=ROWS[::-1]) == expected


def test_the_caller_keeps_its_random_numbers(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(model, tokenizer, tmp_path / "a.jsonl")
    assert torch.equal(torch.rand(3), expected)


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


def test_chat_messages_go_through_the_chat_template(tokenizer: Any) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u?"}]
    prepared = prepare([{"id": "q", "prompt": prompt, "answer": "a"}], tokenizer)[0]
    assert prepared.text == "system:s\nuser:u?\na:"
    assert prepared.tokens == tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_dict=False
    )


def test_the_chat_template_is_told_what_it_was_told_in_training() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += "{% if enable_thinking is false %}no{% endif %}{{ hint }}"
    rows = [{"id": "q", "prompt": [{"role": "user", "content": "u"}], "answer": "a"}]
    said = {"enable_thinking": False, "hint": ":x"}
    assert prepare(rows, tokenizer)[0].text == "user:u\na:"
    assert prepare(rows, tokenizer, template=said)[0].text == "user:u\na:no:x"


def test_questions_without_a_name_are_called_by_their_place(tokenizer: Any) -> None:
    rows = [{"prompt": "a=", "answer": "a"}, {"prompt": "b=", "answer": "b"}]
    assert [question.row["id"] for question in prepare(rows, tokenizer)] == ["row-0", "row-1"]


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


def test_isomers_are_called_by_set_domain_and_test_and_keep_them(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    row = {"isomer_id": "s1", "domain": "law", "test": "reversed", "depth": 3, "answer": "e"}
    rows = [row | {"prompt": "x="}, row | {"prompt": "y=", "domain": "science", "test": None}]
    records = run(model, tokenizer, tmp_path / "a.jsonl", rows=rows)
    assert set(records) == {"s1/law/reversed", "s1/science"}
    found = records["s1/law/reversed"]
    assert (found.isomer_id, found.test, found.level) == ("s1", "reversed", 3)


def test_a_prompt_has_no_end_that_the_tokenizer_puts_behind_every_text() -> None:
    plain, appending = tiny_tokenizer(), tiny_tokenizer()
    appending.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", appending.eos_token_id)]
    )
    assert appending("ab=")["input_ids"][-1] == appending.eos_token_id
    row = {"id": "q", "prompt": "ab="}
    found = [prepare([row], tokenizer)[0].tokens for tokenizer in (appending, plain)]
    assert found[0] == found[1]
