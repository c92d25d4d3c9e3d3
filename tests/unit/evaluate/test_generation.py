"""Completions of a tiny model: what is drawn, where it ends, what is refused."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from tokenizers import decoders
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaForCausalLM,
    MistralConfig,
)

from poise.evaluate.ask import Completion, Sampling, complete, stop_tokens
from tests.tiny import tiny_config, tiny_tokenizer

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


def test_a_completion_ends_at_the_tokens_of_model_and_tokenizer(model: Any) -> None:
    tokenizer = tiny_tokenizer()
    assert stop_tokens(model, tokenizer) == [1]
    tokenizer.eos_token = "."
    assert stop_tokens(model, tokenizer) == sorted([1, tokenizer.convert_tokens_to_ids(".")])


def test_a_completion_is_what_comes_before_its_end(model: Any) -> None:
    tokenizer = tiny_tokenizer()
    free = [argmax_of(model, prompt, 20) for prompt in PROMPTS]
    end = free[0][3]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
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


def test_each_prompt_has_its_own_samples(model: Any, tokenizer: Any) -> None:
    sampling = Sampling(k=5, temperature=1.0, max_new_tokens=8)
    torch.manual_seed(0)
    found = complete(model, tokenizer, PROMPTS, sampling)
    assert [len(row) for row in found] == [5, 5, 5]
    assert all(len({c.text for c in row}) > 1 for row in found)
    sharp = Sampling(k=5, temperature=1e-6, max_new_tokens=8)
    found = complete(model, tokenizer, PROMPTS, sharp)
    assert [{c.text for c in row} for row in found] == [
        {c.text} for c in greedy(model, tokenizer, 8)
    ]


@pytest.mark.parametrize("most_rows", [1, 2, 5, 7])
def test_samples_of_a_prompt_may_come_in_parts(
    model: Any, tokenizer: Any, most_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    generate = model.generate

    def spy(**arguments: Any) -> Any:
        output = generate(**arguments)
        if isinstance(output, torch.Tensor):  # not where the prompts are read
            rows.append(len(output))
        return output

    monkeypatch.setattr(model, "generate", spy)
    sampling = Sampling(k=5, temperature=1e-6, max_new_tokens=3)
    found = complete(model, tokenizer, PROMPTS[:1], sampling, most_rows=most_rows)
    assert len(found[0]) == sum(rows) == 5 and max(rows) == min(most_rows, 5)


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
        reads.append(kwargs["input_ids"].shape)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    assert drawn(PROMPTS) == once
    long = [shape for shape in reads if shape[1] > 1]
    assert long == [(3, 6)]  # three prompts of seven tokens, without the last
    monkeypatch.setattr("poise.evaluate.ask.read_once", lambda *_, **__: None)
    assert drawn(PROMPTS) == once


@pytest.mark.parametrize(("k", "copies"), [(1, 0), (2, 0), (5, 2)])
def test_what_was_read_is_copied_only_for_samples_that_come_later(
    k: int, copies: int, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Any] = []
    original = copy.deepcopy

    def counted(value: Any, *memo: Any) -> Any:
        if isinstance(value, DynamicCache):
            copied.append(value)
        return original(value, *memo)

    monkeypatch.setattr(copy, "deepcopy", counted)
    prompts = [[*range(3, 13), *prompt] for prompt in PROMPTS]
    sampling = Sampling(k=k, temperature=1.0, max_new_tokens=3)
    complete(model, tokenizer, prompts, sampling, most_rows=2)
    assert len(copied) == copies


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
    monkeypatch.setattr("poise.reading._read_beginning", lambda *_: None)
    assert drawn() == shared
    if name != "window":  # of which a part is kept: read again
        assert sum(read) - tokens == 3 * 8  # four rows, of which eight columns are read as one row
