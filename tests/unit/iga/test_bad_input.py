"""Bad input of IGA gives one clear error before any training: expected, found, what to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig, VeraConfig
from torch import optim
from transformers import LlamaForCausalLM
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer
from trl import SFTConfig

from poise import IGAConfig, IGATrainer
from poise.iga.adapters import UnsupportedAdapter
from poise.iga.preflight import check_isomer_rows, check_plain_sgd
from poise.trl.preflight import FIGURES, check_best_metric
from tests.tiny import tiny_isomers, tiny_tokenizer

LORA: dict[str, Any] = {"r": 2, "target_modules": "all-linear"}


def test_an_optimizer_that_was_made_before_the_adapter(
    make: Callable[..., IGATrainer], tiny_model_path: str
) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    with pytest.raises(ValueError, match=r"one of \d+ tensors that are not.*make the adapter"):
        make(model=model, optimizers=(optim.AdamW(model.parameters()), None))


@pytest.fixture
def make(make_iga_config: Callable[..., Any], tiny_model_path: str) -> Callable[..., IGATrainer]:
    def build(settings: dict[str, Any] | None = None, **overrides: Any) -> IGATrainer:
        arguments: dict[str, Any] = {
            "model": tiny_model_path,
            "train_dataset": tiny_isomers(),
            "peft_config": LoraConfig(**LORA),
        }
        return IGATrainer(args=make_iga_config(**settings or {}), **arguments | overrides)

    return build


def _rows(**changes: Any) -> Dataset:
    """Two sets in two domains; a change replaces a whole column, None removes it."""
    columns: dict[str, Any] = {
        "isomer_id": ["a", "a", "b", "b"],
        "domain": ["law", "sport"] * 2,
        "prompt": ["w", "x", "y", "z"],
        "completion": [" 1", " 2", " 3", " 4"],
    }
    return Dataset.from_dict({k: v for k, v in (columns | changes).items() if v is not None})


TWICE = _rows(domain=["law", "sport", "law", "law"])
NONE = _rows().select([])
TALK = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "1"}]
TOKENS = Dataset.from_dict({"input_ids": [[3]]})
LAYER_WISE = (LayerWiseDummyOptimizer({}, lr=0.1), None)
STEPS_INSIDE = "LayerWiseDummyOptimizer steps inside the backward, past the gradients that are"
# What the trainer is given beside settings: all of these before a model is loaded.
ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "no data": ({"train_dataset": None}, "must be a datasets.Dataset with isomer sets, got None"),
    "a list": ({"train_dataset": [{"prompt": "x"}]}, "got list"),
    "a stream": ({"train_dataset": _rows().to_iterable_dataset()}, "cannot be grouped into sets"),
    "no row": ({"train_dataset": NONE}, "found none"),
    "no ids": ({"train_dataset": _rows(isomer_id=None)}, "expected a column 'isomer_id'"),
    "no completion": ({"train_dataset": _rows(completion=None)}, "expected a column 'completion'"),
    "messages in one": (
        {"train_dataset": _rows(prompt=None, completion=None, messages=[TALK] * 4)},
        r"expected a column 'prompt', found .*'messages'; make prompt and completion of 'messages'"
        r".*row\['messages'\]\[:-1\], 'completion': row\['messages'\]\[-1:\]",
    ),
    "text in one": (
        {"train_dataset": _rows(prompt=None, completion=None, text=["x 1"] * 4)},
        "make prompt and completion of 'text', what stands before the answer and the answer",
    ),
    "empty domain": ({"train_dataset": _rows(domain=["law", "", "a", "b"])}, "row 1: .* 'domain'"),
    "a domain twice in a set": (
        {"train_dataset": TWICE},
        r"row 3: .*another of 'law' in set 'b' \(row 2\)",
    ),
    "tokens without labels": (
        {"train_dataset": _rows(prompt=None, completion=None, input_ids=[[3, 4]] * 4)},
        "train_dataset: expected 'labels' .* beside 'input_ids'",
    ),
    "images": ({"train_dataset": _rows(images=["p"] * 4)}, "trains on text alone"),
    "nothing to evaluate on": ({"eval_dataset": NONE}, "eval_dataset: expected at least one row"),
    "one of two": ({"eval_dataset": {"a": _rows(), "b": NONE}}, r"eval_dataset\['b'\]: expected"),
    "no answers": (
        {"eval_dataset": _rows(completion=None)},
        "eval_dataset: expected a column 'completion'",
    ),
    "no labels": ({"eval_dataset": TOKENS}, "eval_dataset: expected 'labels'"),
    "a loss function": ({"compute_loss_func": print}, "compute_loss_func does not work with IGA"),
    "a formatting function": ({"formatting_func": print}, "formatting_func does not work with IGA"),
    "full fine-tuning": ({"peft_config": None}, "pass peft_config=LoraConfig"),
    "DoRA": ({"peft_config": LoraConfig(**LORA, use_dora=True)}, "found use_dora"),
    "no LoRA": ({"peft_config": VeraConfig(target_modules=["q_proj"])}, "found VERA"),
    "an optimizer in the backward": ({"optimizers": LAYER_WISE}, STEPS_INSIDE),
    "its class": ({"optimizer_cls_and_kwargs": (LayerWiseDummyOptimizer, {})}, STEPS_INSIDE),
    "no model": ({}, "no existing folder"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments_that_cannot_work(case: str, make: Callable[..., Any], tmp_path: Path) -> None:
    arguments, message = ARGUMENTS[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make(**{"model": "nowhere at all"} | arguments)
    folder = tmp_path / "run"
    assert not folder.exists() or os.listdir(folder) == []


SETTINGS: list[tuple[dict[str, Any], Dataset, str]] = [
    (
        {"dataloader_drop_last": True, "per_device_train_batch_size": 8},
        _rows(),
        "at least the 4 isomer sets of a batch, found 2",
    ),
    # What counted sets before: the error says what to multiply by.
    (
        {"per_device_train_batch_size": 4},
        tiny_isomers(),
        r"=4 counts sequences.*multiple of 3, e\.g\. 3 or 6 \(12 for 4 sets\)",
    ),
    ({"report_to": "nosuch"}, _rows(), r"report_to: expected .*, found 'nosuch': no such tracker"),
    ({"domains": ["law", "art"]}, _rows(), "row 1: expected a domain among law, art, found 'sp"),
]


@pytest.mark.parametrize(("settings", "rows", "message"), SETTINGS)
def test_settings_that_do_not_fit_the_rows(
    settings: dict[str, Any], rows: Dataset, message: str, make: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        make(settings, train_dataset=rows, model="never looked at")


def test_an_adapter_of_no_layer(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"found: .*nosuch.*may name down_proj, "):
        make(peft_config=LoraConfig(target_modules=["nosuch"]))


def test_the_best_model_is_that_of_a_figure_that_there_is(make: Callable[..., Any]) -> None:
    """And the figures are those of the installed TRL."""
    wrong = {"metric_for_best_model": "accuracy", "eval_strategy": "steps"}
    trainer = make(wrong, eval_dataset=tiny_isomers())
    with pytest.raises(ValueError, match=r"expected 'entropy', .*'loss', .*, found 'accuracy'"):
        trainer.train()
    found = {name.removeprefix("eval_") for name in trainer.evaluate()}
    known = {*trainer._figures, *FIGURES} - {"aux_loss"}  # that of a mixture of experts
    assert found - {"epoch", "model_preparation_time"} == known
    trainer.compute_metrics = lambda _: {}
    check_best_metric(trainer, ())


def test_named_domains_keep_their_order() -> None:
    assert check_isomer_rows(_rows(), ["sport", "art", "law"]) == ("sport", "art", "law")
    assert check_isomer_rows(_rows()) == ("law", "sport")


def test_a_single_domain_and_lone_rows_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    check_isomer_rows(_rows(isomer_id=list("abcd"), domain=["law"] * 4))
    assert "nothing to compare" in caplog.text
    caplog.clear()
    check_isomer_rows(_rows(isomer_id=list("aabc")))
    assert "2 of 3 isomer sets have a single row" in caplog.text
    caplog.clear()
    check_isomer_rows(_rows())
    assert caplog.text == ""


def test_rows_that_are_cut_to_nothing(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    prompts = ["in a long prompt", "x", "y", "z"]
    trainer = make({"max_length": 5}, train_dataset=_rows(prompt=prompts))
    assert "1 of 4 rows have no completion left within max_length=5" in caplog.text
    assert trainer.train_dataset.sequences == 3
    with pytest.raises(ValueError, match="no row has a completion within max_length=1"):
        make({"max_length": 1}, train_dataset=_rows())


def test_messages_become_rows_as_the_error_says(make: Callable[..., Any]) -> None:
    rows = _rows(prompt=None, completion=None, messages=[TALK] * 4)
    with pytest.raises(ValueError, match="make prompt and completion") as caught:
        check_isomer_rows(rows)
    made = eval(str(caught.value).partition("the last: ")[2])
    assert made[0]["prompt"] == TALK[:1] and made[0]["completion"] == TALK[1:]
    assert make(train_dataset=made).train_dataset.sequences == 4


def test_arguments_of_another_trainer(make_iga_config: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="must be an IGAConfig, got SFTConfig"):
        IGATrainer("a model", make_iga_config(SFTConfig), train_dataset=tiny_isomers())


def test_loaded_model_without_adapters(make: Callable[..., Any], tiny_model_path: str) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    with pytest.raises(UnsupportedAdapter, match="found none in LlamaForCausalLM"):
        make(model=model, peft_config=None, processing_class=tiny_tokenizer())


def test_plain_fine_tuning_needs_no_adapters(make: Callable[..., Any]) -> None:
    trainer = make({"method": "erm", "max_steps": 1}, peft_config=None)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


OTHER_STEPS: list[Callable[..., Any]] = [
    lambda w: optim.SGD([w], lr=0.1, momentum=0.9),
    lambda w: optim.SGD([w], lr=0.1, weight_decay=0.1),
    lambda w: optim.SGD([w], lr=0.1, maximize=True),
    lambda w: optim.SGD([{"params": [p], "lr": lr} for p, lr in ((w, 0.1), (w * 1, 0.2))]),
    lambda w: optim.AdamW([w], lr=0.1, weight_decay=0.0),
]


@pytest.mark.parametrize("build", OTHER_STEPS)
def test_retraction_with_a_step_that_is_not_plain(build: Callable[..., Any]) -> None:
    weight = torch.zeros(1)
    with pytest.raises(ValueError, match=r"needs torch\.optim\.SGD with one learning rate"):
        check_plain_sgd(build(weight))
    check_plain_sgd(optim.SGD([weight], lr=0.1))


def test_retraction_with_adam_is_refused_before_the_model_is_loaded(
    make: Callable[..., Any],
) -> None:
    with pytest.raises(ValueError, match="set optim='sgd' and weight_decay=0"):
        make({"update": "retraction", "max_grad_norm": 0.0})


def test_what_is_known_of_a_trainer_alone(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    trainer._refuse_unsupported()
    for thing, name, value, message in (
        (
            trainer.accelerator.state,
            "distributed_type",
            DistributedType.DEEPSPEED,
            "cannot run under DeepSpeed",
        ),
        (type(trainer.accelerator), "parallelism_config", object(), "parallelism_config"),
        (trainer, "aux_loss_enabled", True, "router_aux_loss_coef=0"),
    ):
        with monkeypatch.context() as patch, pytest.raises(ValueError, match=message):
            patch.setattr(thing, name, value)
            trainer._refuse_unsupported()


def test_several_gpus_of_one_process(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IGAConfig, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"cannot run under DataParallel .*2 GPUs.*use DDP"):
        make(model="never looked at")


def test_output_folder_that_cannot_be_written(make: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written"):
        make({"output_dir": str(tmp_path / "file" / "run")})


def test_a_batch_is_described_in_sets_and_sequences(
    make: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="poise"):
        make({"max_steps": 1}).train()
    assert "A batch has 4 isomer sets, about 11 sequences in 3 domains." in caplog.text
