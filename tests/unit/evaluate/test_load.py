"""Names on the command line, and the models that they load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from poise.evaluate.ask import Sampling, complete, stop_tokens
from poise.evaluate.load import Target, check_target, find_target, fingerprint, load
from tests.tiny import save_adapter, save_tiny_model

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def adapter(tiny_model_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_model_path, tmp_path_factory.mktemp("adapter") / "lora")


def logits(target: Target, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    model, _ = load(target, dtype, CPU)
    with torch.inference_mode():
        result: torch.Tensor = model(IDS).logits
    return result


def test_a_name_stands_for_a_model_an_adapter_or_a_run(
    adapter: Path, tmp_path: Path, tiny_model_path: str
) -> None:
    found = find_target(tiny_model_path)
    assert (found.model, found.adapter, found.run) == (tiny_model_path, None, None)
    found = find_target(str(adapter))
    assert (found.model, found.adapter, found.name) == (tiny_model_path, str(adapter), "lora")
    moved = shutil.copytree(tiny_model_path, tmp_path / "moved")
    assert find_target(str(adapter), base=str(moved)).model == str(moved)
    assert find_target(str(moved), adapter=str(adapter)).model == str(moved)
    assert find_target(None, adapter=str(adapter)).model == tiny_model_path
    run = shutil.copytree(adapter, tmp_path / "run" / "adapter").parent
    assert find_target(str(run)) == Target(tiny_model_path, str(run / "adapter"), "run")
    (run / "metrics.jsonl").touch()
    assert find_target(str(run)).run == run
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "org/name"
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    assert find_target(str(run)).model == "org/name"


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.2)])
def test_an_adapter_acts_as_in_plain_peft(
    adapter: Path, tiny_model_path: str, dtype: str, tolerance: float
) -> None:
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(tiny_model_path)
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(base, str(adapter)).eval()(IDS).logits
    found = logits(find_target(str(adapter)), getattr(torch, dtype))
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
    plain = logits(find_target(tiny_model_path))
    assert (plain - expected).abs().max() > 1.0


ENDS: dict[str, dict[str, Any]] = {
    "LoRA on the head": {"target_modules": ["q_proj", "lm_head"]},
    "LoRA on the embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "head trained whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "rows of the embeddings": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 6]},
    "added tokens": {"target_modules": ["q_proj"]},
}


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning")
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied:UserWarning")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "apart"])
@pytest.mark.parametrize("case", ENDS)
def test_a_loaded_adapter_gives_the_trained_models_logits(
    case: str, tied: bool, tmp_path: Path
) -> None:
    base = save_tiny_model(tmp_path / "base", tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(base)
    if case == "added tokens":
        model.resize_token_embeddings(model.config.vocab_size + 2, mean_resizing=False)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", init_lora_weights=False, **ENDS[case])
    trained = get_peft_model(model, config).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
        expected = trained(IDS).logits
    trained.save_pretrained(tmp_path / "adapter")
    found = logits(find_target(base, adapter=str(tmp_path / "adapter")))
    # Merging adds products of order one before, not after, some hundred others.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_fingerprint_follows_the_weights(
    adapter: Path, tiny_model_path: str, tmp_path: Path
) -> None:
    first = fingerprint(find_target(str(adapter)))
    other = save_adapter(tiny_model_path, tmp_path / "other", seed=1)
    assert fingerprint(find_target(str(adapter))) == first
    assert fingerprint(find_target(str(other))) != first
    assert fingerprint(find_target(tiny_model_path)) != first
    assert fingerprint(Target("some/model", None, "model")) is None
    checkpoint = shutil.copytree(adapter, tmp_path / "checkpoint-1")
    (checkpoint / "poise_rollouts_0.safetensors").write_bytes(b"no weights of the model")
    assert fingerprint(find_target(str(checkpoint))) == first


def test_an_adapter_for_another_model_is_refused(adapter: Path, tmp_path: Path) -> None:
    wide = save_tiny_model(tmp_path / "wide", hidden_size=64, intermediate_size=48)
    with pytest.raises(ValueError, match="does not fit the model"):
        load(find_target(str(adapter), base=wide), torch.float32, CPU)


def test_a_name_that_is_nowhere_is_said_to_be_no_folder() -> None:
    with pytest.raises(ValueError, match=r"'no-run' cannot be loaded: no such folder is here, and"):
        check_target(find_target("no-run"))


def test_pickled_weights_are_refused(adapter: Path, tiny_model_path: str, tmp_path: Path) -> None:
    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"expected adapter_model\.safetensors"):
        load(find_target(str(pickled)), torch.float32, CPU)
    model = shutil.copytree(tiny_model_path, tmp_path / "model")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(find_target(str(model)), torch.float32, CPU)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [("{oops", "expected a JSON object"), ("{}", "names no base model"), ("[]", "JSON object")],
)
def test_a_damaged_adapter_is_named(tmp_path: Path, config: str, complaint: str) -> None:
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(ValueError, match=f"adapter_config.json.*{complaint}"):
        find_target(str(tmp_path))


def test_what_is_no_model_or_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        find_target(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected a folder with adapter_config"):
        find_target(None, adapter=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="expected a run folder, an adapter or a model"):
        find_target(str(tmp_path / "nothere"))


@pytest.mark.parametrize("with_adapter", [False, True])
def test_a_models_own_habits_of_sampling_shape_no_sample(
    adapter: Path, tiny_model_path: str, tmp_path: Path, with_adapter: bool
) -> None:
    base = shutil.copytree(tiny_model_path, tmp_path / "habits")
    habits = {"do_sample": True, "top_k": 1, "repetition_penalty": 9.0, "eos_token_id": [1, 5]}
    (base / "generation_config.json").write_text(json.dumps(habits))
    target = Target(str(base), str(adapter) if with_adapter else None, "x")
    model, tokenizer = load(target, torch.bfloat16, CPU)
    assert stop_tokens(model, tokenizer) == [1, 5]
    torch.manual_seed(0)
    sampling = Sampling(k=300, temperature=1.0, top_p=1.0, max_new_tokens=1)
    (samples,) = complete(model, tokenizer, IDS.tolist(), sampling)
    with torch.no_grad():
        p = model(IDS).logits[0, -1].float().softmax(-1)
    likeliest = tokenizer.decode([int(p.argmax())])
    share = sum(sample.text == likeliest for sample in samples) / 300
    assert abs(share - float(p.max())) < 4.5 * (0.25 / 300) ** 0.5
    assert float(p.max()) < 0.8
