"""What an IGA run leaves behind, and that the host's own things still work."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import LlamaForCausalLM, TrainerCallback

from poise import IGATrainer
from tests.tiny import DOMAINS, tiny_isomers

from .conftest import train, trained


def _lines(folder: Path, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


def test_a_run_logs_domains_and_layers(make: Callable[..., IGATrainer], tmp_path: Path) -> None:
    trainer = make(max_steps=4, logging_steps=2, tau_schedule="linear", tau_warmup_steps=2)
    trainer.train()
    metrics, layers = (_lines(tmp_path / "run", f) for f in ("metrics.jsonl", "layers.jsonl"))
    first, second = (line for line in metrics if "loss" in line)
    assert (first["iga/tau"], second["iga/tau"]) == (0.5, 1.0)
    for domain in DOMAINS:
        assert first[f"iga/loss/{domain}"] > 0
    assert first["loss"] == pytest.approx(
        sum(first[f"iga/loss/{domain}"] for domain in DOMAINS) / 3, rel=0.05
    )
    assert [line["step"] for line in layers] == [2, 4]
    assert len(layers[0]["layers"]) == 14  # seven matrices in each of two layers
    for figure in ("mask_mean", "suppressed_energy", "agreement", "rank_energy"):
        values = [layer[figure] for layer in layers[0]["layers"].values()]
        assert first[f"iga/{figure}"] == pytest.approx(sum(values) / 14)


def test_tau_is_the_arguments_at_each_step(make: Callable[..., IGATrainer], tmp_path: Path) -> None:
    """A callback may be a schedule of one's own; with tau 0 nothing is masked."""

    class Off(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.tau = 1.5 if state.global_step == 0 else 0.0

    make(max_steps=2, tau=1.5, arguments={"callbacks": [Off()]}).train()
    first, second = (line for line in _lines(tmp_path / "run", "metrics.jsonl") if "loss" in line)
    assert (first["iga/tau"], second["iga/tau"]) == (1.5, 0.0)
    assert first["iga/mask_mean"] < 1.0 == second["iga/mask_mean"]


def test_without_the_engine_there_are_losses_but_no_layers(
    make: Callable[..., IGATrainer], tmp_path: Path
) -> None:
    make(method="erm").train()
    metrics = _lines(tmp_path / "run", "metrics.jsonl")
    assert "iga/loss/law" in metrics[0]
    assert not any(name.startswith("iga/mask") for name in metrics[0])
    assert _lines(tmp_path / "run", "layers.jsonl") == []


def test_the_adapter_loads_in_plain_peft(
    make: Callable[..., IGATrainer], tmp_path: Path, tiny_model_path: str
) -> None:
    trainer = make()
    trainer.train()
    trainer.save_model(str(tmp_path / "run"))
    base = LlamaForCausalLM.from_pretrained(tiny_model_path)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "run"))
    ids = torch.tensor([[5, 6, 7, 8]])
    trainer.model.eval()
    with torch.no_grad():
        expected, found = trainer.model(input_ids=ids).logits, loaded(input_ids=ids).logits
        with loaded.disable_adapter():
            assert not torch.equal(loaded(input_ids=ids).logits, expected)
    assert torch.equal(found, expected)


class StopWithinAStep(TrainerCallback):  # type: ignore[misc]
    """Stops the first run between the micro-batches of the step after so many."""

    def __init__(self, is_error: bool, steps: int = 2) -> None:
        self._is_error, self._steps, self._has_stopped = is_error, steps, False

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._steps and not self._has_stopped:
            self._has_stopped = control.should_training_stop = True
            if self._is_error:
                raise KeyboardInterrupt


@pytest.mark.parametrize("is_error", [True, False])
@pytest.mark.parametrize(
    "method",
    [
        {"space": "direction"},
        {"space": "factor"},
        {"space": "weight"},
        {"method": "group_dro", "method_options": {"step_size": 1.0}},
    ],
    ids=lambda own: own.get("space") or own["method"],
)
def test_a_run_that_stopped_within_a_step_goes_on_in_the_same_trainer(
    method: dict[str, Any], is_error: bool, make: Callable[..., IGATrainer], tmp_path: Path
) -> None:
    """To the bit as one that did not."""
    settings = method | {
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 6,
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 4,
    }
    expected = train(make(**settings, output_dir=str(tmp_path / "whole")))
    trainer = make(**settings, arguments={"callbacks": [StopWithinAStep(is_error)]})
    with pytest.raises(KeyboardInterrupt) if is_error else nullcontext():
        trainer.train()
    assert trainer.state.global_step == 2
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert trainer.state.global_step == 4
    found = trained(trainer)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_run_that_stopped_within_a_step_begins_anew_without_its_part(
    make: Callable[..., IGATrainer], tmp_path: Path
) -> None:
    """Neither its losses, which are logged, nor what they would make of the domains' weights."""
    settings = {
        "method": "group_dro",
        "method_options": {"step_size": 1.0},
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 6,
        "learning_rate": 0.0,
        "max_steps": 2,
    }

    def log(trainer: IGATrainer) -> list[dict[str, float]]:
        trainer.train()
        lines = [line for line in trainer.state.log_history if "loss" in line]
        return [{n: v for n, v in line.items() if n.startswith("iga/")} for line in lines]

    trainer = make(**settings, arguments={"callbacks": [StopWithinAStep(True, 0)]})
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    expected = log(make(**settings, output_dir=str(tmp_path / "whole")))
    assert len(expected) == 2
    assert any(name.startswith("iga/loss/") for name in expected[0])
    assert log(trainer) == expected


def test_evaluation_is_the_hosts(make_iga_config: Callable[..., Any], tiny_model_path: str) -> None:
    rows = tiny_isomers(4)
    trainer = IGATrainer(
        tiny_model_path,
        make_iga_config(eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=3),
        train_dataset=tiny_isomers(),
        eval_dataset=rows,
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    trainer.train()
    line, _ = (line for line in trainer.state.log_history if "eval_loss" in line)
    assert line["step"] == 2
    assert line["eval_loss"] > 0
    assert not any(name.startswith("eval_iga") for name in line)
