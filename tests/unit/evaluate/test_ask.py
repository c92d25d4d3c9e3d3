"""A tiny model is asked: what is drawn, where it ends, what is kept, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import decoders
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaForCausalLM,
    MistralConfig,
)

from poise.evaluate.ask import (
    Completion,
    Sampling,
    ask_questions,
    complete,
    prepare,
    stop_tokens,
)
from poise.evaluate.records import QuestionRecord, RecordWriter, read_records
from poise.evaluate.scoring import Row, Scored
from tests.tiny import tiny_config, tiny_tokenizer

from .constructed import header

PROMPTS = [[7, 8, 9, 10, 11, 12, 13], [20, 21], [30, 5, 6, 9]]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(7)  # greedy completions of this one hold no special tokens
    return LlamaForCausalLM(tiny_config()).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token a character, joined without blanks."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()
    return tokenizer


def greedy(model: Any, tokenizer: Any, steps: int, *stop: str) -> list[Completion]:
    sampling = Sampling(k=1, temperature=0.0, max_new_tokens=steps, stop=stop)
    return [row[0] for row in complete(model, tokenizer, PROMPTS, sampling)]


def argmax_of(model: Any, prompt: list[int], steps: int) -> list[int]:
    """Greedy tokens of one prompt, without cache or padding."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(steps):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_prompts_of_a_batch_do_not_disturb_one_another(model: Any, tokenizer: Any) -> None:
    expected = [argmax_of(model, prompt, 20) for prompt in PROMPTS]
    found = greedy(model, tokenizer, 20)
    assert [c.text for c in found] == [tokenizer.decode(row) for row in expected]
    assert [(c.length, c.finished) for c in found] == [(20, False)] * 3


def test_a_completion_is_what_comes_before_its_end(model: Any) -> None:
    tokenizer = tiny_tokenizer()
    assert stop_tokens(model, tokenizer) == [1]
    free = [argmax_of(model, prompt, 20) for prompt in PROMPTS]
    end = free[0][3]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    assert stop_tokens(model, tokenizer) == sorted([1, end])
    lengths = [row.index(end) if end in row else 20 for row in free]
    found = greedy(model, tokenizer, 20)
    assert [c.length for c in found] == lengths and lengths[0] <= 3
    assert [c.finished for c in found] == [length < 20 for length in lengths]
    said = [row[:length] for row, length in zip(free, lengths, strict=True)]
    assert [c.text for c in found] == tokenizer.batch_decode(said)


@pytest.mark.parametrize("size", [1, 2])
def test_a_completion_is_cut_before_the_first_stop_text(
    model: Any, tokenizer: Any, size: int
) -> None:
    free = [c.text for c in greedy(model, tokenizer, 20)]
    stops = free[0][6 : 6 + size], free[1][9 : 9 + size]
    found = greedy(model, tokenizer, 20, *stops)
    for completion, text in zip(found, free, strict=True):
        places = [text.find(stop) for stop in stops if stop in text]
        assert completion.finished == bool(places)
        assert completion.text == text[: min(places, default=20)]
        # The model has said the stop text too, and nothing after it.
        assert completion.length == len(completion.text) + size * completion.finished
    assert found[0].finished and found[1].finished


def test_a_stop_text_at_the_very_end_counts(model: Any, tokenizer: Any) -> None:
    free = greedy(model, tokenizer, 20)[0].text
    place = next(i for i, character in enumerate(free) if i and character not in free[:i])
    found = greedy(model, tokenizer, place + 1, free[place])[0]
    assert found == Completion(free[:place], place + 1, finished=True)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6)])
def test_tokens_are_drawn_with_temperature_and_nucleus_and_nothing_else(
    model: Any, tokenizer: Any, temperature: float, top_p: float
) -> None:
    draws = 4000
    with torch.no_grad():
        logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1]
    p, order = (logits / temperature).softmax(-1).sort(descending=True)
    p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    sampling = Sampling(k=draws, temperature=temperature, top_p=top_p, max_new_tokens=1)
    torch.manual_seed(0)
    (samples,) = complete(model, tokenizer, PROMPTS[:1], sampling)
    counts = Counter(c.text for c in samples)
    for share, token in zip((p / p.sum()).tolist(), order.tolist(), strict=True):
        if token >= 3:  # special tokens have no text
            error = 4.5 * (share * (1 - share) / draws) ** 0.5
            assert abs(counts[tokenizer.decode([token])] / draws - share) <= error


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"k": 0}, "k: expected"),
        ({"k": 1.5}, "k: expected"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected"),
        ({"temperature": -0.1}, "temperature: expected"),
        ({"temperature": float("nan")}, "temperature: expected"),
        ({"top_p": 0.0}, "top_p: expected"),
        ({"top_p": 1.1}, "top_p: expected"),
        ({"stop": ("\n", "")}, "stop: expected texts that are not empty"),
        ({"temperature": 0.0, "k": 4}, "all 4 samples would be equal"),
    ],
)
def test_senseless_sampling_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sampling(**settings)


def test_prompts_that_are_read_once_give_the_samples_of_prompts_that_are_read_k_times(
    model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = Sampling(k=6, temperature=1.0, top_p=1.0, max_new_tokens=12)

    def drawn(prompts: list[list[int]]) -> list[list[Completion]]:
        torch.manual_seed(5)
        return complete(model, tokenizer, prompts, sampling, most_rows=4)

    once, reads = drawn(PROMPTS), []
    original = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        reads.append(tuple(kwargs["input_ids"].shape))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    assert drawn(PROMPTS) == once
    # Three prompts of seven tokens, without the last; then four samples of each, and two.
    assert [shape for shape in reads if shape[1] > 1] == [(3, 6)]
    assert {shape[0] for shape in reads} == {3, 6, 12}
    monkeypatch.setattr("poise.evaluate.ask.read_once", lambda *_, **__: None)
    assert drawn(PROMPTS) == once


def test_a_prompt_of_one_token_beside_longer_ones(model: Any, tokenizer: Any) -> None:
    sampling = Sampling(k=2, temperature=1e-4, max_new_tokens=8)
    found = complete(model, tokenizer, [[9], PROMPTS[0]], sampling)
    for prompt, samples in zip([[9], PROMPTS[0]], found, strict=True):
        text = tokenizer.decode(argmax_of(model, prompt, 8))
        assert [c.text for c in samples] == [text, text]


SIZE = {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1}
MODELS = {
    "rotary": tiny_config(),
    "window": MistralConfig(
        **SIZE, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=5,
    ),
    "learned": GPT2Config(**SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=64),
}  # fmt: skip


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_a_beginning_that_prompts_share_is_read_once(
    name: str, k: int, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(MODELS[name], dtype=torch.float64).eval()
    tails = [[7, 8], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31], [5]]
    prompts = [[3, 4, 5, 6, 7, 8, 9, 10, 11, 12], *([[3, 4, 5, 6, 7, 8, 9, 10, *t] for t in tails])]
    sampling = Sampling(k=k, temperature=0.0 if k == 1 else 1.0, max_new_tokens=6)

    def drawn() -> list[list[Completion]]:
        torch.manual_seed(5)
        return complete(model, tokenizer, prompts, sampling)

    read: list[int] = []
    embeddings = model.get_input_embeddings()
    embeddings.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    shared, tokens = drawn(), sum(read)
    read.clear()
    monkeypatch.setattr("poise.prompt_cache._read_beginning", lambda *_: None)
    assert drawn() == shared
    if name != "window":  # of which a part is kept: read again
        assert sum(read) - tokens == 3 * 8  # four rows, of which eight columns are read as one row


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


class Asker:
    """Asks the saved tiny model, and keeps its answers in files of one folder."""

    def __init__(self, path: str, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.folder = folder

    def __call__(self, name: str = "a", **settings: Any) -> dict[str, QuestionRecord]:
        questions = prepare(settings.pop("rows", ROWS), self.tokenizer)
        writer = RecordWriter(self.folder / name, header())
        sampling = settings.pop("sampling", SAMPLING)
        model = settings.pop("model", self.model)
        ask_questions(model, self.tokenizer, questions, writer, score, sampling, **settings)
        return {question.id: question for question in read_records(writer.path).questions}


@pytest.fixture
def asker(tiny_model_path: str, tmp_path: Path) -> Asker:
    return Asker(tiny_model_path, tmp_path)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_every_question_is_recorded_with_its_samples_and_scores(
    asker: Asker, batch_size: int
) -> None:
    records = asker(batch_size=batch_size)
    assert set(records) == {row["id"] for row in ROWS}
    for row in ROWS:
        record = records[row["id"]]
        assert (record.prompt, record.level, record.answer) == (row["prompt"], row["level"], "e")
        assert len(record.completions) == SAMPLING.k
        assert record.extracted == tuple(first_vowel(text) for text in record.completions)
        assert record.rewards == tuple(float(found == "e") for found in record.extracted)
        # A character is a token, and tokens are joined by blanks; special ones are not shown.
        for text, length, done in zip(
            record.completions, record.lengths, record.finished, strict=True
        ):
            assert len(text[::2]) <= length <= SAMPLING.max_new_tokens
            assert done or length == SAMPLING.max_new_tokens
    assert 0 < sum(sum(r.rewards) for r in records.values()) < len(ROWS) * SAMPLING.k


def test_seed_and_batches_alone_decide_the_samples(asker: Asker) -> None:
    first = asker(seed=1, batch_size=8)
    assert asker("b", seed=1, batch_size=8, rows=ROWS[::-1]) == first
    assert asker("c", seed=2, batch_size=8) != first


@pytest.mark.parametrize("lines", [1, 4])
def test_an_interrupted_evaluation_ends_as_if_it_had_not_been(asker: Asker, lines: int) -> None:
    torch.manual_seed(5)
    number = torch.rand(1)
    torch.manual_seed(5)
    expected = asker(batch_size=8)
    assert torch.rand(1) == number  # the caller keeps its random numbers
    path = asker.folder / "a"
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:lines]) + whole[lines][:20])
    assert asker(batch_size=8) == expected
    assert path.read_bytes().splitlines(keepends=True) == whole
    stub = torch.nn.Module()  # has no forward: to call it would fail
    stub.generation_config = asker.model.generation_config
    assert asker(batch_size=8, model=stub) == expected
    with pytest.raises(ValueError, match=r"'q1' has another prompt.*--overwrite"):
        asker(rows=[row | {"prompt": "y="} for row in ROWS])
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, found 0"):
        asker("b", batch_size=0)


def test_isomers_are_called_by_set_domain_and_test_and_keep_them(asker: Asker) -> None:
    rows = [{"prompt": "a=", "answer": "e"}, {"prompt": "b=", "answer": "e"}]
    assert set(asker("by place", rows=rows)) == {"row-0", "row-1"}
    row = {"isomer_id": "s1", "domain": "law", "test": "reversed", "depth": 3, "answer": "e"}
    rows = [row | {"prompt": "x="}, row | {"prompt": "y=", "domain": "science", "test": None}]
    records = asker(rows=rows)
    assert set(records) == {"s1/law/reversed", "s1/science"}
    found = records["s1/law/reversed"]
    assert (found.isomer_id, found.test, found.level) == ("s1", "reversed", 3)


def test_chat_messages_go_through_the_chat_template(tokenizer: Any) -> None:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "u?"}]
    prepared = prepare([{"id": "q", "prompt": prompt, "answer": "a"}], tokenizer)[0]
    assert prepared.text == "system:s\nuser:u?\na:"
    assert prepared.tokens == tokenizer.apply_chat_template(
        prompt, add_generation_prompt=True, return_dict=False
    )
    own = tiny_tokenizer()
    own.chat_template += "{% if enable_thinking is false %}no{% endif %}{{ hint }}"
    rows = [{"id": "q", "prompt": [{"role": "user", "content": "u"}], "answer": "a"}]
    said = {"enable_thinking": False, "hint": ":x"}
    assert prepare(rows, own)[0].text == "user:u\na:"
    assert prepare(rows, own, template=said)[0].text == "user:u\na:no:x"
    with pytest.raises(ValueError, match="no chat template"):
        prepare(rows, tiny_tokenizer(chat=False))


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


def test_a_prompt_has_no_end_that_the_tokenizer_puts_behind_every_text() -> None:
    plain, appending = tiny_tokenizer(), tiny_tokenizer()
    appending.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", appending.eos_token_id)]
    )
    assert appending("ab=")["input_ids"][-1] == appending.eos_token_id
    row = {"id": "q", "prompt": "ab="}
    found = [prepare([row], tokenizer)[0].tokens for tokenizer in (appending, plain)]
    assert found[0] == found[1]
