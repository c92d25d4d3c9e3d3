"""Which LoRA matrices the engine finds, and which adapters it refuses by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft.tuners.lora
import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftMixedModel,
    PromptTuningConfig,
    get_peft_model,
)
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import nn

from poise.iga.adapters import LINEAR, UnsupportedAdapter, find_adapters
from poise.iga.engine import GradientEngine
from poise.iga.settings import IGA
from tests.equivalence.iga_models import llama, toy, two_adapters
from tests.equivalence.iga_toys import Toy


def _short(model: nn.Module) -> list[str]:
    return [".".join(a.name.rsplit(".", 2)[-2:]) for a in find_adapters(model)]


def test_every_layer_is_found_with_its_factors_and_scaling() -> None:
    model = toy(r=4, lora_alpha=6)
    adapters = find_adapters(model)
    assert [a.name for a in adapters] == ["base_model.model.inner", "base_model.model.other"]
    inner = model.base_model.model.inner
    assert adapters[0].parameters[0] is inner.lora_A["default"].weight
    assert adapters[0].parameters[1] is inner.lora_B["default"].weight
    assert adapters[0].scaling == 1.5
    assert [f.requires_grad for f in adapters[0].factors] == [False, False]


def test_rank_stabilised_scaling_and_patterns_are_read() -> None:
    model = toy(r=4, lora_alpha=6, use_rslora=True, rank_pattern={"other": 9})
    assert [a.scaling for a in find_adapters(model)] == [3.0, 2.0]
    assert [a.down.weight.shape[0] for a in find_adapters(model)] == [4, 9]


def test_of_several_active_adapters_each_is_found() -> None:
    found = _short(two_adapters("default", "second"))
    assert found[:4] == [
        "q_proj.default",
        "q_proj.second",
        "v_proj.second",
        "down_proj.default",
    ]
    assert len(found) == 8


def test_idle_and_frozen_adapters_are_left_out() -> None:
    assert _short(two_adapters("second"))[:2] == ["self_attn.q_proj", "self_attn.v_proj"]
    both = find_adapters(two_adapters("default", "second", trained=("second",)))
    assert all(a.name.endswith(".second") for a in both)


def test_one_trained_factor_is_enough() -> None:
    model = toy()
    model.base_model.model.inner.lora_A["default"].weight.requires_grad_(False)
    assert len(find_adapters(model)) == 2


# Refusals

INNER = "base_model.model.inner"


class Convolution(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 3)  # type: ignore[assignment]


class Fused(LoraLinear):
    """It may compute something else, though it derives from LoRA's linear layer."""


def _adapted(base: nn.Module, *targets: str) -> Any:
    return get_peft_model(base, LoraConfig(target_modules=list(targets), r=2))


def _fused() -> Any:
    model = toy()
    model.get_submodule(INNER).__class__ = Fused
    return model


def _with_experts() -> Any:
    """A number of routed tokens that the batch divides would pass for whole sequences."""
    model = Toy()
    model.experts = nn.ModuleList([nn.Linear(4, 4)])
    return _adapted(model, "inner", "experts.0")


def _mixed() -> Any:
    model = PeftMixedModel(Toy(), LoraConfig(target_modules=["inner"], r=2), "first")
    model.add_adapter("second", LoHaConfig(target_modules=["other"], r=2))
    model.set_adapter(["first", "second"])
    return model


def _of_prompts() -> Any:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(llama().get_base_model(), config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" not in name)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "DoRA": (lambda: toy(use_dora=True), (INNER, "Dora", "use_dora=False")),
    "IA3": (
        lambda: get_peft_model(Toy(), IA3Config(target_modules=["inner"], feedforward_modules=[])),
        (INNER, "expected LoRA, found"),
    ),
    "LoHa": (
        lambda: get_peft_model(Toy(), LoHaConfig(target_modules=["inner"], r=2)),
        (INNER, "expected LoRA, found"),
    ),
    "LoHa beside LoRA": (_mixed, ("other", "expected LoRA, found")),
    "an embedding": (
        lambda: _adapted(Toy(), "inner", "embed"),
        ("base_model.model.embed", "Embedding", "target_modules"),
    ),
    "a convolution": (
        lambda: _adapted(Convolution(), "inner"),
        (INNER, "Conv2d", "target_modules"),
    ),
    "an unknown class": (_fused, (INNER, "Fused", "target_modules")),
    "experts": (_with_experts, ("base_model.model.experts.0", "exclude_modules")),
    "a scaling of 0": (lambda: toy(lora_alpha=0), (INNER, "lora_alpha=0")),
    "no adapter": (Toy, ("a PEFT model with trainable LoRA adapters", "found none in Toy")),
    "frozen ones": (lambda: toy().requires_grad_(False), ("LoRA adapters, found none",)),
    "prompt tuning": (_of_prompts, ("trainable LoRA adapters, found none",)),
}


def _refused(model: nn.Module, *words: str) -> None:
    with pytest.raises(UnsupportedAdapter) as caught:
        find_adapters(model)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("case", REFUSED)
def test_adapters_that_cannot_be_taken_apart_are_refused_by_name(case: str) -> None:
    build, words = REFUSED[case]
    _refused(build(), *words)


@pytest.mark.parametrize(
    ("case", "part", "left"),
    [("an embedding", "embed", "model.inner"), ("LoHa beside LoRA", "hada", "inner.first")],
)
def test_a_refused_layer_that_is_frozen_is_none(case: str, part: str, left: str) -> None:
    model = REFUSED[case][0]()
    for name, parameter in model.named_parameters():
        if part in name:
            parameter.requires_grad_(False)
    assert _short(model) == [left]


def test_classes_of_linear_layers_are_those_of_peft() -> None:
    """A name that PEFT gives up would let nothing in, and tell nobody."""
    folder = Path(peft.tuners.lora.__file__).parent
    for name in LINEAR:
        module, _, kind = name.removeprefix("peft.tuners.lora.").partition(".")
        assert f"class {kind}(" in (folder / f"{module}.py").read_text(), name


@pytest.mark.parametrize("path", ["", "base_model.model.inner", "base_model.model.head"])
@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_layers_are_refused_unless_no_adapter_is_among_them(
    path: str, in_place: bool
) -> None:
    model = toy()
    part = model.get_submodule(path)
    if in_place:
        part.compile(backend="eager")
    elif path:
        model.set_submodule(path, torch.compile(part, backend="eager"))
    else:
        model = torch.compile(model, backend="eager")
    if path.endswith("head"):
        assert len(find_adapters(model)) == 2
    else:
        _refused(model, path, "torch.compile", "leave it uncompiled")


def test_the_retraction_needs_both_factors() -> None:
    model = toy()
    model.base_model.model.other.lora_B["default"].weight.requires_grad_(False)
    with pytest.raises(UnsupportedAdapter, match="other: expected both factors to be trained"):
        GradientEngine(model, IGA(space="weight", update="retraction"))
