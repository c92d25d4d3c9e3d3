"""Bad input of IGA gives one clear error before any training: expected, found, what to do."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from datasets import Dataset
from peft import LoraConfig, VeraConfig
from torch import nn
from transformers import LlamaForCausalLM
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer
from trl import SFTConfig

from poise import IGAConfig, IGATrainer
from poise.iga.adapters import UnsupportedAdapter
from poise.iga.preflight import check_fsdp, check_isomer_rows, check_plain_sgd
from tests.tiny import tiny_isomers, tiny_tokenizer

LORA: dict[str, Any] = {"r": 2, "target_modules": "all-linear"}
SGD: dict[str, Any] = {"update": "retraction", "optim": "sgd", "max_grad_norm": 0.0}


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


ROWS: dict[str, tuple[Any, type[Exception], str]] = {
    "no data": (None, TypeError, "must be a datasets.Dataset with isomer sets, got NoneType"),
    "a list": ([{"prompt": "x"}], TypeError, "got list"),
    "a stream": (_rows().to_iterable_dataset(), TypeError, "cannot be grouped into sets"),
    "no row": (_rows().select([]), ValueError, "found none"),
    "no ids": (_rows(isomer_id=None), ValueError, "expected a column 'isomer_id'"),
    "misspelt domain": (
        _rows(domain=None, domian=["law"] * 4),
        ValueError,
        "did you mean 'domian'",
    ),
    "no prompt": (_rows(prompt=None), ValueError, "expected a column 'prompt'"),
    "no completion": (_rows(completion=None), ValueError, "expected a column 'completion'"),
    "empty id": (_rows(isomer_id=["a", "a", "", "b"]), ValueError, "row 2: .* 'isomer_id'"),
    "empty domain": (_rows(domain=["law", "", "law", "x"]), ValueError, "row 1: .* 'domain'"),
    "empty completion": (_rows(completion=["1", "2", "3", " "]), ValueError, "row 3"),
    "domain twice in a set": (
        _rows(domain=["law", "sport", "law", "law"]),
        ValueError,
        r"row 3: .*another of 'law' in set 'b' \(row 2\)",
    ),
    "tokens without labels": (
        _rows(prompt=None, completion=None, input_ids=[[3, 4]] * 4),
        ValueError,
        "train_dataset: expected 'labels' .* beside 'input_ids'",
    ),
    "images": (_rows(images=["p"] * 4), ValueError, "trains on text alone"),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_trained_on(case: str, make: Callable[..., Any]) -> None:
    rows, error, message = ROWS[case]
    with pytest.raises(error, match=message):
        make(train_dataset=rows, model="never looked at")


EVALUATION: dict[str, tuple[Any, str]] = {
    "none": (_rows().select([]), "eval_dataset: expected at least one row"),
    "one of two": ({"a": _rows(), "b": _rows().select([])}, r"eval_dataset\['b'\]: expected at"),
    "no completion": (_rows(completion=None), "eval_dataset: expected a column 'completion'"),
    "no labels": (Dataset.from_dict({"input_ids": [[3]]}), "eval_dataset: expected 'labels'"),
}


@pytest.mark.parametrize("case", EVALUATION)
def test_rows_that_cannot_be_evaluated_on(case: str, make: Callable[..., Any]) -> None:
    rows, message = EVALUATION[case]
    model = nn.Linear(1, 1)  # never looked at
    with pytest.raises(ValueError, match=message):
        make(model=model, eval_dataset=rows)


def test_fewer_sets_than_a_batch_that_is_dropped(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="at least the 4 isomer sets of a batch, found 2"):
        make(
            {"dataloader_drop_last": True, "per_device_train_batch_size": 8}, train_dataset=_rows()
        )


def test_a_batch_that_would_hold_a_part_of_a_set(make: Callable[..., Any]) -> None:
    """Also what counted sets before: the error says what to multiply by."""
    message = r"=4 counts sequences.*multiple of 3, e\.g\. 3 or 6 \(12 for 4 sets\)"
    with pytest.raises(ValueError, match=message):
        make({"per_device_train_batch_size": 4}, model="never looked at")


def test_a_domain_that_was_not_named(make: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="row 1: expected a domain among law, art, found 'sport'"):
        make({"domains": ["law", "art"]}, train_dataset=_rows())


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


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "a loss function": ({"compute_loss_func": print}, "compute_loss_func does not work with IGA"),
    "a formatting function": ({"formatting_func": print}, "formatting_func does not work with IGA"),
    "full fine-tuning": ({"peft_config": None}, "pass peft_config=LoraConfig"),
    "DoRA": ({"peft_config": LoraConfig(**LORA, use_dora=True)}, "found use_dora"),
    "no LoRA": ({"peft_config": VeraConfig(target_modules=["q_proj"])}, "found VERA"),
    "no model": ({"model": "nowhere at all"}, "no existing folder"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_argument_that_cannot_work(case: str, make: Callable[..., Any]) -> None:
    arguments, message = ARGUMENTS[case]
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_arguments_of_another_trainer(
    make_iga_config: Callable[..., Any], tiny_model_path: str
) -> None:
    with pytest.raises(TypeError, match="must be an IGAConfig, got SFTConfig"):
        IGATrainer(tiny_model_path, make_iga_config(SFTConfig), train_dataset=tiny_isomers())


def test_loaded_model_without_adapters(make: Callable[..., Any], tiny_model_path: str) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_path)
    with pytest.raises(UnsupportedAdapter, match="found none in LlamaForCausalLM"):
        make(model=model, peft_config=None, processing_class=tiny_tokenizer())


def test_plain_fine_tuning_needs_no_adapters(make: Callable[..., Any]) -> None:
    trainer = make({"method": "erm", "max_steps": 1}, peft_config=None)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters())


RETRACTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "Adam": ({"update": "retraction", "max_grad_norm": 0.0}, "needs plain SGD: set optim='sgd'"),
    "weight decay": (SGD | {"weight_decay": 0.1}, "weight_decay=0 .*0.1"),
    "clipping": (SGD | {"max_grad_norm": 1.0}, "set max_grad_norm=0"),
}


@pytest.mark.parametrize("case", RETRACTIONS)
def test_retraction_with_another_step(case: str, make: Callable[..., Any]) -> None:
    settings, message = RETRACTIONS[case]
    with pytest.raises(ValueError, match=message):
        make(settings)


@pytest.mark.parametrize("settings", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"maximize": True}])
def test_retraction_with_an_sgd_that_is_not_plain(settings: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=r"needs torch\.optim\.SGD"):
        check_plain_sgd(torch.optim.SGD([weight], lr=0.1, **settings))
    check_plain_sgd(torch.optim.SGD([weight], lr=0.1))


def test_retraction_with_the_users_own_adam_fails_before_the_first_step(
    make: Callable[..., Any], tiny_model_path: str
) -> None:
    trainer = make(SGD, optimizer_cls_and_kwargs=(torch.optim.Adam, {"lr": 0.1}))
    with pytest.raises(ValueError, match="found Adam"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_optimizer_that_steps_inside_the_backward(
    make: Callable[..., Any], make_iga_config: Callable[..., Any]
) -> None:
    bypassed = "steps inside the backward, past the gradients that are taken apart by domain"
    with pytest.raises(ValueError, match=f"adalomo {bypassed}"):
        make_iga_config(optim="adalomo")
    make_iga_config(optim="adalomo", method="erm")
    for own in (
        {"optimizers": (LayerWiseDummyOptimizer({}, lr=0.1), None)},
        {"optimizer_cls_and_kwargs": (LayerWiseDummyOptimizer, {})},
    ):
        with pytest.raises(ValueError, match=f"LayerWiseDummyOptimizer {bypassed}"):
            make(**own)


def test_retraction_with_two_learning_rates() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 0.2)]
    with pytest.raises(ValueError, match="one learning rate"):
        check_plain_sgd(torch.optim.SGD(groups))


def test_retraction_of_shards(make_iga_config: Callable[..., Any]) -> None:
    """Of one rank, too; several are refused anyway."""
    plain = {"optim": "sgd", "max_grad_norm": 0.0, "weight_decay": 0.0}
    plugin = SimpleNamespace(cpu_offload=None)
    check_fsdp(plugin, make_iga_config(**plain))
    with pytest.raises(ValueError, match="found them in shards"):
        check_fsdp(plugin, make_iga_config(update="retraction", **plain))


def test_distribution_that_cannot_work(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    with monkeypatch.context() as patch:
        patch.setattr(trainer.accelerator.state, "distributed_type", DistributedType.DEEPSPEED)
        with pytest.raises(ValueError, match="cannot run under DeepSpeed"):
            trainer._refuse_unsupported()
    with monkeypatch.context() as patch:
        patch.setattr(type(trainer.accelerator), "parallelism_config", object())
        with pytest.raises(ValueError, match="parallelism_config"):
            trainer._refuse_unsupported()
    trainer._refuse_unsupported()


def test_several_gpus_of_one_process(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IGAConfig, "n_gpu", 2)
    with pytest.raises(ValueError, match=r"cannot run under DataParallel .*2 GPUs.*use DDP"):
        make(model="never looked at")


def test_auxiliary_loss_of_a_router(make: Callable[..., Any]) -> None:
    trainer = make()
    trainer.aux_loss_enabled = True
    with pytest.raises(ValueError, match="router_aux_loss_coef=0"):
        trainer._refuse_unsupported()


def test_a_refused_start_leaves_nothing_in_the_output_folder(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="row 3"):
        make(train_dataset=_rows(domain=["law", "sport", "law", "law"]))
    folder = tmp_path / "run"
    assert not folder.exists() or os.listdir(folder) == []


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
