"""Bases of 4 and 8 bits: gradients flow through them, and what is trained on them is in float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from poise import IGATrainer, PGPOTrainer
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.tiny import save_tiny_model, tiny_dataset, tiny_isomers, tiny_tokenizer, vowel_reward

bitsandbytes = pytest.importorskip("bitsandbytes")
LORA = LoraConfig(r=2, target_modules="all-linear")


@pytest.fixture
def model(tiny_model_path: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tiny model in four bits, as on a CPU that bitsandbytes packs weights for."""

    def packs(*args: Any) -> None:
        raise AssertionError("packed, and no gradient flows")

    monkeypatch.setattr(bitsandbytes.nn.modules, "has_avx512bf16", lambda: True)
    monkeypatch.setattr(bitsandbytes.nn.modules, "_convert_weight_packed_for_cpu", packs)
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    return AutoModelForCausalLM.from_pretrained(
        tiny_model_path, quantization_config=bits, dtype=torch.float32
    )


def _pgpo(model: Any, args: Any, lora: LoraConfig | None = LORA, **given: Any) -> PGPOTrainer:
    rows, tokenizer = tiny_dataset(), tiny_tokenizer()
    return PGPOTrainer(model, vowel_reward, args, rows, None, tokenizer, peft_config=lora, **given)


def _iga(model: Any, args: Any, lora: LoraConfig | None = LORA, **given: Any) -> IGATrainer:
    rows, tokenizer = tiny_isomers(), tiny_tokenizer()
    return IGATrainer(model, args, None, rows, rows, tokenizer, peft_config=lora, **given)


def test_rollouts_pack_nothing(model: Any, make_config: Callable[..., Any]) -> None:
    _pgpo(model, make_config(max_steps=1)).train()


def test_an_evaluation_packs_nothing(model: Any, make_iga_config: Callable[..., Any]) -> None:
    _iga(model, make_iga_config()).evaluate()


def test_an_engine_in_a_loop_of_ones_own_packs_nothing(model: Any) -> None:
    adapted = get_peft_model(model, LORA)
    GradientEngine(adapted, IGA(space="direction"))
    with torch.no_grad():
        adapted.eval()(torch.tensor([[3, 4, 5]]))


def test_a_model_that_is_packed_is_refused(model: Any, make_config: Callable[..., Any]) -> None:
    model.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(
        ValueError, match=r"1\.mlp\.up_proj.*packed its weights.*load the model anew"
    ):
        _pgpo(model, make_config())


# What TRL makes bfloat16 of: all that is trained, by SFT; by SDPO, what follows the compute dtype.


@pytest.fixture(params=["IGA", "PGPO"])
def make(
    request: pytest.FixtureRequest,
    make_config: Callable[..., Any],
    make_iga_config: Callable[..., Any],
) -> Callable[..., Any]:
    """Builds a trainer, whose products are in bfloat16."""
    build, config = (_iga, make_iga_config) if request.param == "IGA" else (_pgpo, make_config)

    def make(model: Any, lora: LoraConfig | None = LORA, **settings: Any) -> Any:
        given = {name: settings.pop(name) for name in ("optimizers",) if name in settings}
        run = {"bf16": True, "max_steps": 1, "learning_rate": 1e-5} | settings
        return build(model, config(**run), lora, **given)

    return make


def _quantised(path: str, bits: int, dtype: torch.dtype = torch.float32) -> Any:
    config = BitsAndBytesConfig(
        load_in_4bit=bits == 4,
        load_in_8bit=bits == 8,
        llm_int8_threshold=0.0,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(path, quantization_config=config, dtype=dtype)


def _adapters(trainer: Any) -> dict[str, torch.Tensor]:
    """The student's, and a teacher's."""
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters() if "lora_" in n}


def test_biases_that_are_trained_keep_their_digits(
    make_iga_config: Callable[..., Any], tmp_path: Path
) -> None:
    path = save_tiny_model(tmp_path / "biased", attention_bias=True)
    plain = AutoModelForCausalLM.from_pretrained(path)
    for name, param in plain.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(param)
    plain.save_pretrained(path)
    lora = LoraConfig(r=2, target_modules="all-linear", bias="all")
    trainer: Any = _iga(_quantised(path, 4), make_iga_config(bf16=True), lora)
    model = trainer.model.get_base_model()
    found = {n: p for n, p in model.named_parameters() if n.endswith("bias")}
    assert len(found) == 8
    for name, param in found.items():
        assert param.requires_grad
        assert torch.equal(param, plain.get_parameter(name.replace(".base_layer", "")))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_small_step_moves_the_adapters(
    bits: int, make: Any, tiny_model_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    lora = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    trainer = make(_quantised(tiny_model_path, bits), lora)
    before = _adapters(trainer)
    trainer.train()
    moved = [(p != before[n]).flatten() for n, p in _adapters(trainer).items() if "default" in n]
    assert torch.cat(moved).float().mean() > 0.9
    assert {weight.dtype for weight in before.values()} == {torch.float32}
    assert "below the rounding of" not in caplog.text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_that_is_handed_over_keeps_its_digits(
    dtype: torch.dtype, make: Any, tiny_model_path: str
) -> None:
    model = get_peft_model(_quantised(tiny_model_path, 4), LORA)
    for param in model.parameters():
        if param.requires_grad:
            param.data = torch.randn(param.shape).to(dtype)
    given = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}
    for name, weight in _adapters(make(model, None)).items():
        expected = given[name.replace(".teacher.", ".default.")]
        assert torch.equal(weight, expected.to(weight.dtype))
        assert weight.dtype == dtype or ".teacher." in name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_trained_head_has_the_precision_and_digits_of_its_models(
    dtype: torch.dtype, tiny_model_path: str, make_iga_config: Callable[..., Any]
) -> None:
    lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    trainer = _iga(_quantised(tiny_model_path, 4, dtype), make_iga_config(), lora)
    trained = {n: p.dtype for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {kind for n, kind in trained.items() if "lora_" in n} == {torch.float32}
    assert {kind for n, kind in trained.items() if "modules_to_save" in n} == {dtype}
    head = trainer.model.get_output_embeddings()
    first = head.original_module.weight
    assert torch.equal(head.modules_to_save["default"].weight, first)
    assert head.modules_to_save["default"].weight.data_ptr() != first.data_ptr()
    assert trainer.model(torch.tensor([[3, 4]])).logits.isfinite().all()


SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-2}


def _resumed(run: Callable[[], Any], folder: Path) -> None:
    """A run that is cut after its first save, and gone on with, ends where it did, to the bit."""
    whole, again = run(), run()
    before = _adapters(again)
    whole.train()
    shutil.rmtree(folder / "checkpoint-4")
    again.train(resume_from_checkpoint=True)
    expected, found = _adapters(whole), _adapters(again)
    for name, weight in expected.items():
        assert found[name].dtype == before[name].dtype == weight.dtype, name
        assert torch.equal(found[name], weight), name
    assert any(not torch.equal(weight, before[n]) for n, weight in expected.items())


def test_a_resumed_run_ends_where_the_whole_one_does(
    make: Any, tiny_model_path: str, tmp_path: Path
) -> None:
    _resumed(lambda: make(_quantised(tiny_model_path, 4), **SAVED), tmp_path / "run")


@pytest.mark.parametrize("has_own", [True, False], ids=["own optimizer", "its optimizer"])
def test_so_does_one_of_adapters_in_bfloat16(
    has_own: bool, make: Any, tiny_model_path: str, tmp_path: Path
) -> None:
    """PEFT would read them into new weights, in float32, which one's own optimizer has not."""

    def run() -> Any:
        torch.manual_seed(0)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model_path), LORA)
        trained = [param for param in model.parameters() if param.requires_grad]
        for param in trained:
            param.data = param.data.bfloat16()
        own = {"optimizers": (torch.optim.AdamW(trained, lr=1e-2), None)} if has_own else {}
        return make(model, None, **own, **SAVED)

    _resumed(run, tmp_path / "run")
