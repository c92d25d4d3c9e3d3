"""Representations of a tiny model: read at the answer, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from poise.evaluate.ask import prepare
from poise.evaluate.records import RecordError, beside
from poise.evaluate.represent import (
    default_layer,
    find_kept,
    places_of,
    read_missing,
    represent,
)
from tests.tiny import tiny_tokenizer

from .constructed import header


@pytest.fixture(scope="module")
def model(tiny_model_path: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_path).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_path)


def row(set_name: str, domain: str, text: str, answer: str = "x") -> dict[str, Any]:
    return {
        "isomer_id": set_name,
        "domain": domain,
        "prompt": f"{text} reasoning:",
        "completion": f" so {text}\nAnswer: {answer}",
    }


ROWS = [row(f"s{i}", domain, domain * (i + 1)) for i in range(3) for domain in ("law", "science")]


def read(model: Any, tokenizer: Any, rows: list[dict[str, Any]], **settings: Any) -> Any:
    questions = prepare(rows, tokenizer)
    return represent(model, tokenizer, questions, **({"layer": 1} | settings))


def test_the_vector_is_the_hidden_state_at_the_end_of_answer(model: Any, tokenizer: Any) -> None:
    for layer in (0, 1, 2):
        found = read(model, tokenizer, ROWS, layer=layer)
        for line, vector in zip(ROWS, found, strict=True):
            text = line["prompt"] + line["completion"].removesuffix(" x")
            assert text.endswith("\nAnswer:")
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            expected = states.hidden_states[layer][0, -1].detach().numpy()
            np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    for batch_size in (1, 2, 5):
        turned = read(model, tokenizer, ROWS[::-1], layer=2, batch_size=batch_size)[::-1]
        np.testing.assert_allclose(turned, found, rtol=1e-4, atol=1e-5)


def test_an_adapter_is_read_through(tiny_model_path: str, tokenizer: Any) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_path).eval()
    plain = read(base, tokenizer, ROWS)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    np.testing.assert_array_equal(read(adapted, tokenizer, ROWS), plain)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    changed = read(adapted, tokenizer, ROWS)
    assert np.abs(changed - plain).max() > 1e-3
    merged = read(adapted.merge_and_unload(), tokenizer, ROWS)
    np.testing.assert_allclose(merged, changed, rtol=1e-3, atol=1e-4)


def test_problems_are_placed_by_set_domain_and_test(tokenizer: Any) -> None:
    questions = prepare([ROWS[0] | {"test": "deeper"}, ROWS[1]], tokenizer)
    first, second = places_of(questions)
    assert (first.id, first.isomer_id, first.domain) == ("s0/law/deeper", "s0", "law")
    assert (first.test, second.test) == ("deeper", None)


def test_what_was_kept_is_used_again_only_for_the_same(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    sampling = {"dtype": "float32"}
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]

    def kept(rows: list[dict[str, Any]], reader: Any = model, **header_of: Any) -> Any:
        questions, settings = prepare(rows, tokenizer), header(sampling=sampling)
        found = find_kept(reader.config, questions, settings, files, **header_of)
        return found and read_missing(reader, tokenizer, questions, found, files)

    for unread in ({"prompt": "p", "completion": "c"}, ROWS[0] | {"completion": None}):
        assert kept([*ROWS[1:], unread]) is None
    assert list(tmp_path.iterdir()) == []
    found = kept(ROWS)
    assert found.header.sampling["layer"] == default_layer(model) == 1
    assert found.header.sampling["dtype"] == "float32"
    np.testing.assert_array_equal(found.vectors, read(model, tokenizer, ROWS))
    beside(files[1]).unlink()
    stub = SimpleNamespace(config=model.config)  # has no forward: to call it would fail
    np.testing.assert_array_equal(kept(ROWS, stub).vectors, found.vectors)
    assert beside(files[1]).is_file()
    with pytest.raises(RecordError, match=r"'layer': 0.*--overwrite"):
        kept(ROWS, layer=0)
    with pytest.raises(RecordError, match=r"'problems': 4.*'others'"):
        kept(ROWS[:4])
    for layer in (-1, 3):
        with pytest.raises(ValueError, match=rf"layer: expected 0 .* to 2 .*, found {layer}"):
            kept(ROWS, layer=layer)


def test_bad_input_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="expected a line 'Answer:"):
        read(model, tokenizer, [ROWS[0] | {"completion": "so it is"}])
    with pytest.raises(ValueError, match=r"'s0/law': prompt and reference have \d+ tokens"):
        read(model, tokenizer, [ROWS[0] | {"prompt": "x" * 256}])


def test_chat_prompts_are_read_as_they_were_rendered(model: Any) -> None:
    tokenizer = tiny_tokenizer()
    line = ROWS[0] | {"prompt": [{"role": "user", "content": "q"}]}
    plain = ROWS[0] | {"prompt": "user:q\na:"}
    np.testing.assert_array_equal(read(model, tokenizer, [line]), read(model, tokenizer, [plain]))
