"""Our decoding against transformers' own, token for token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DynamicCache,
    LlamaForCausalLM,
    LogitsProcessorList,
    MistralConfig,
    MistralForCausalLM,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from poise.evaluation.decoding import (
    Completion,
    GrowingLayer,
    Sampling,
    choose,
    make_cache,
    sample_completions,
)
from tests.tiny import tiny_config

EOS = 1
PROMPTS = [[7, 8, 9, 10, 11, 12, 13], [20, 21], [30, 5, 6, 9]]


def llama(**overrides: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(tiny_config(**overrides)).eval()


def mistral() -> MistralForCausalLM:
    torch.manual_seed(0)
    settings = tiny_config().to_dict() | {"sliding_window": 5}
    settings.pop("model_type")
    return MistralForCausalLM(MistralConfig(**settings)).eval()


def generated(model: Any, steps: int, stop: list[int]) -> list[list[int]]:
    """Greedy completions by `generate`, one prompt at a time."""
    rows = []
    for prompt in PROMPTS:
        out = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=steps,
            eos_token_id=stop,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        rows.append(out[:-1] if out[-1] in stop else out)
    return rows


def greedy(model: Any, steps: int, stop: list[int]) -> list[Completion]:
    sampling = Sampling(k=1, temperature=0.0, max_new_tokens=steps)
    draws = torch.zeros(len(PROMPTS), 1, steps)
    return [row[0] for row in sample_completions(model, PROMPTS, draws, sampling, stop)]


@pytest.mark.parametrize("make", [llama, mistral])
def test_greedy_completions_are_those_of_generate(make: Any) -> None:
    model, steps = make(), 2 * GrowingLayer.ROOM + 3
    found = greedy(model, steps, stop=[EOS])
    assert [c.tokens for c in found] == generated(model, steps, [EOS])


def test_completions_end_at_any_stop_token_and_say_so() -> None:
    model, steps = llama(), 40
    free = generated(model, steps, [EOS])
    stop = [free[0][3], free[1][20]]
    found = greedy(model, steps, stop)
    assert [c.tokens for c in found] == generated(model, steps, stop)
    assert [c.finished for c in found] == [len(c.tokens) < steps for c in found]
    assert any(c.finished for c in found)


def test_rows_that_end_leave_the_others_as_they_are() -> None:
    model, steps = llama(), 30
    sampling = Sampling(k=8, temperature=1.0, top_p=1.0, max_new_tokens=steps)
    draws = torch.rand(len(PROMPTS), 8, steps, generator=torch.Generator().manual_seed(0))
    stop = list(range(1, 12))  # a fifth of the vocabulary: rows end all the time
    together = sample_completions(model, PROMPTS, draws, sampling, stop)
    for i, prompt in enumerate(PROMPTS):
        for j in range(8):
            alone = sample_completions(model, [prompt], draws[i : i + 1, j : j + 1], sampling, stop)
            assert together[i][j] == alone[0][0]
    assert len({len(c.tokens) for row in together for c in row}) > 5


def test_samples_of_one_prompt_differ_and_their_draws_decide_them() -> None:
    model = llama()
    sampling = Sampling(k=4, temperature=1.0, max_new_tokens=12)
    draws = torch.rand(1, 4, 12, generator=torch.Generator().manual_seed(1))
    first = sample_completions(model, PROMPTS[:1], draws, sampling, [EOS])[0]
    turned = sample_completions(model, PROMPTS[:1], draws.flip(1), sampling, [EOS])[0]
    assert len({tuple(c.tokens) for c in first}) > 1
    assert turned == first[::-1]


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("top_p", [0.3, 0.95, 1.0])
def test_tokens_are_drawn_with_the_probabilities_of_transformers(
    scale: float, top_p: float
) -> None:
    """All draws of an even grid: the shares are the probabilities, up to the grid's spacing."""
    grid = 20_000
    logits = scale * torch.randn(1, 700, generator=torch.Generator().manual_seed(2))
    warpers = LogitsProcessorList([TemperatureLogitsWarper(0.6), TopPLogitsWarper(top_p)])
    expected = warpers(None, logits).softmax(-1)[0]
    draws = (torch.arange(grid) + 0.5) / grid
    sampling = Sampling(temperature=0.6, top_p=top_p)
    tokens = torch.cat([choose(logits.expand(500, -1), sampling, d) for d in draws.split(500)])
    shares = torch.bincount(tokens, minlength=700) / grid
    torch.testing.assert_close(shares, expected, atol=1.5 / grid, rtol=0.0)


def test_the_largest_draw_picks_no_token_without_mass() -> None:
    logits = torch.tensor([[0.0, 5.0, -60.0, -60.0]])
    largest = torch.tensor([1.0 - 2.0**-24])
    for top_p in (0.5, 0.999, 1.0):
        assert choose(logits, Sampling(top_p=top_p), largest).item() in (0, 1)
    assert choose(logits, Sampling(top_p=0.5), largest).item() == 1


def test_the_smallest_draw_skips_tokens_without_mass() -> None:
    logits = torch.tensor([[float("-inf"), 2.0, 1.0]])
    assert choose(logits, Sampling(top_p=1.0), torch.zeros(1)).item() == 1


def test_the_growing_cache_holds_what_the_plain_one_holds() -> None:
    model = llama()
    plain, growing = DynamicCache(config=model.config), make_cache(model.config)
    generator = torch.Generator().manual_seed(3)

    def feed(cache: Any, rows: int, tokens: int, values: torch.Tensor) -> None:
        for layer in range(2):
            cache.update(values[:rows, :, :tokens], -values[:rows, :, :tokens], layer)

    for rows, tokens, act in [
        (2, 5, None),
        (2, 1, lambda c: c.batch_repeat_interleave(3)),
        (6, 1, lambda c: c.batch_select_indices(torch.tensor([0, 4, 5]))),
        (3, GrowingLayer.ROOM + 1, None),
        (3, 1, None),
    ]:
        values = torch.randn(rows, 2, tokens, 8, generator=generator)
        for cache in (plain, growing):
            feed(cache, rows, tokens, values)
            if act:
                act(cache)
    assert all(isinstance(layer, GrowingLayer) for layer in growing.layers)
    assert growing.get_seq_length() == plain.get_seq_length() == 8 + GrowingLayer.ROOM + 1
    for ours, theirs in zip(growing.layers, plain.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, rtol=0, atol=0)
        torch.testing.assert_close(ours.values, theirs.values, rtol=0, atol=0)


def test_appending_writes_into_the_room_that_is_there() -> None:
    cache = make_cache(llama().config)
    cache.update(torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8), 0)
    before = cache.layers[0].keys.data_ptr()
    for _ in range(GrowingLayer.ROOM):
        cache.update(torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8), 0)
    assert cache.layers[0].keys.data_ptr() == before


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
        ({"temperature": 0.0, "k": 4}, "all 4 samples would be equal"),
    ],
)
def test_senseless_sampling_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Sampling(**settings)
